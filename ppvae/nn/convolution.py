"""Convolutional networks for small images, (..., H, W) or in colour (..., C, H, W), with any leading dimensions."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ppvae.nn.mlp import Activation, flatten_event, linear_layers


class ConvEncoder(nn.Module):
    """Strided convolutions and linear layers: (..., H, W) or (..., C, H, W) -> (..., out_features).

    Args:
        image_shape: (H, W) or (C, H, W). Each stage halves the image: H and W are multiples of 2 ** len(channels).
        channels: output channels of the stages (4x4 kernels, stride 2).
        out_features: length of the output.
        activation: constructor of the nonlinearity.
        hidden: widths of linear layers between the convolutions and the output.

    Raises ValueError for an image shape that cannot be halved so often.

    Example:

        >>> ConvEncoder((28, 28), channels=[4, 8], out_features=6)(torch.zeros(5, 28, 28)).shape
        torch.Size([5, 6])
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        channels: Sequence[int],
        out_features: int,
        activation: Activation = nn.ReLU,
        hidden: Sequence[int] = (),
    ):
        super().__init__()
        self.image_shape = tuple(image_shape)
        colours, height, width = _reduced(self.image_shape, len(channels))
        stages: list[nn.Module] = []
        for fan_in, fan_out in zip([colours, *channels], channels, strict=False):
            stages += [nn.Conv2d(fan_in, fan_out, 4, stride=2, padding=1), activation()]
        widths = [channels[-1] * height * width, *hidden, out_features]
        self.layers = nn.Sequential(*stages, nn.Flatten(), *linear_layers(widths, activation))

    def forward(self, x: Tensor) -> Tensor:
        """The output for x of shape (..., *image_shape)."""
        return over_images(self.layers, x, self.image_shape)


class ConvDecoder(nn.Module):
    """Linear layers and transposed convolutions: (..., in_features) -> (..., H, W) or (..., C, H, W).

    Args:
        in_features: length of the input.
        channels: input channels of the stages (transposed 4x4 kernels, stride 2).
        image_shape: (H, W) or (C, H, W). Each stage doubles the image: H and W are multiples of 2 ** len(channels).
        activation: constructor of the nonlinearity.
        hidden: widths of linear layers between the input and the convolutions.
        normalisation: channels -> a layer before the nonlinearity of each stage, such as ``nn.BatchNorm2d``; None for
            none.

    Raises ValueError for an image shape that cannot be halved so often.

    Example:

        >>> ConvDecoder(3, channels=[8, 4], image_shape=(28, 28))(torch.zeros(5, 3)).shape
        torch.Size([5, 28, 28])
    """

    def __init__(
        self,
        in_features: int,
        channels: Sequence[int],
        image_shape: Sequence[int],
        activation: Activation = nn.ReLU,
        hidden: Sequence[int] = (),
        normalisation: Callable[[int], nn.Module] | None = None,
    ):
        super().__init__()
        self.in_features, self.image_shape = in_features, tuple(image_shape)
        colours, height, width = _reduced(self.image_shape, len(channels))
        widths = [in_features, *hidden, channels[0] * height * width]
        stages: list[nn.Module] = [
            *linear_layers(widths, activation),
            nn.Sequential(nn.Unflatten(-1, (channels[0], height, width)), _ChannelsLast()),
        ]
        for fan_in, fan_out in zip(channels, [*channels[1:], colours], strict=True):
            normalised = [] if normalisation is None else [normalisation(fan_in)]
            stages += [*normalised, activation(), nn.ConvTranspose2d(fan_in, fan_out, 4, stride=2, padding=1)]
        self.layers = nn.Sequential(*stages)

    def forward(self, z: Tensor) -> Tensor:
        """The images for z of shape (..., in_features)."""
        flat = flatten_event(z, (self.in_features,)).reshape(-1, self.in_features)
        return self.layers(flat).reshape(*z.shape[:-1], *self.image_shape)


class ConvClassifier(nn.Module):
    """Four batch-normalised 3x3 convolutions, dropout, a linear layer: (..., [C,] H, W) -> (..., num_classes) logits.

    Args:
        image_shape: (H, W) or (C, H, W), H and W multiples of 4.
        num_classes: number of classes.
        width: channels of the first stage; the others have 2, 2 and 4 times as many.
        dropout: probability that a channel is dropped before the linear layer.

    Raises ValueError for another image shape.

    Example:

        >>> ConvClassifier((28, 28), num_classes=10)(torch.zeros(5, 28, 28)).shape
        torch.Size([5, 10])
    """

    def __init__(self, image_shape: Sequence[int], num_classes: int, width: int = 16, dropout: float = 0.5):
        super().__init__()
        self.image_shape = tuple(image_shape)
        colours, height, width_ = _reduced(self.image_shape, 2)
        channels = [colours, width, 2 * width, 2 * width, 4 * width]
        stages: list[nn.Module] = []
        for fan_in, fan_out, stride in zip(channels, channels[1:], (2, 2, 1, 1), strict=False):
            stages += [
                nn.Conv2d(fan_in, fan_out, 3, stride, padding=1, bias=False),
                nn.BatchNorm2d(fan_out),
                nn.ReLU(),
            ]
        features = channels[-1] * height * width_
        self.convolutions = nn.Sequential(*stages)
        self.head = nn.Sequential(nn.Dropout2d(dropout), nn.Flatten(), nn.Linear(features, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        """The logits for x of shape (..., *image_shape)."""
        return over_images(lambda images: self.head(self.convolutions(images)), x, self.image_shape)


def over_images(layers: Callable[[Tensor], Tensor], x: Tensor, image_shape: tuple[int, ...]) -> Tensor:
    """Layers of (N, C, H, W) applied to images (..., H, W) or (..., C, H, W); shape (..., features).

    Example:

        >>> over_images(nn.Flatten(), torch.zeros(2, 3, 8, 8), (8, 8)).shape
        torch.Size([2, 3, 64])
    """
    leading = flatten_event(x, image_shape).shape[: x.dim() - len(image_shape)]
    # Channels last is faster on a CPU (`to`: with one channel `contiguous` changes no strides). The weights keep their
    # layout: Pyro's parameter store copies what is not contiguous, and a stock SVI loop would train the copy.
    images = x.reshape(-1, *_with_colours(image_shape)).to(memory_format=torch.channels_last)
    return layers(images).reshape(*leading, -1)


class _ChannelsLast(nn.Module):
    """The layout of :func:`over_images` for the output of linear layers; the convolutions after it keep it."""

    def forward(self, images: Tensor) -> Tensor:
        return images.contiguous(memory_format=torch.channels_last)


def _with_colours(image_shape: tuple[int, ...]) -> tuple[int, ...]:
    return image_shape if len(image_shape) == 3 else (1, *image_shape)


def _reduced(image_shape: tuple[int, ...], halvings: int) -> tuple[int, int, int]:
    """(C, H, W) after that many halvings."""
    factor = 2**halvings
    if len(image_shape) not in (2, 3) or any(length % factor or not length for length in image_shape[-2:]):
        raise ValueError(
            f"expected (H, W) or (C, H, W), H and W multiples of {factor}, got {image_shape}; use fewer stages"
        )
    colours, height, width = _with_colours(image_shape)
    return colours, height // factor, width // factor
