"""Noise on the input of an encoder, for denoising autoencoders."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class CorruptInput(nn.Module):
    """An encoder of corrupted data in training mode, and of the data themselves in evaluation mode.

    The model observes the clean data, so that the pair learns to restore them: a denoising autoencoder with
    ``PointGuide``, a denoising VAE with a Gaussian guide. A pair in evaluation mode denoises what it is given.

    Args:
        encoder: network (B, *event_shape) -> (B, features), which takes conditions after x if there are some.
        noise: function of x that returns a corrupted x of the same shape, such as :class:`MaskingNoise`. It must not
            change x in place.

    Source: Vincent et al. 2010, "Stacked Denoising Autoencoders"; of a VAE: Im et al. 2017, "Denoising Criterion for
    Variational Auto-Encoding Framework".

    Example:

        >>> encoder, x = CorruptInput(nn.Identity(), MaskingNoise(1.0)), torch.ones(1, 3)
        >>> encoder(x), encoder.eval()(x)
        (tensor([[0., 0., 0.]]), tensor([[1., 1., 1.]]))
    """

    def __init__(self, encoder: nn.Module, noise: Callable[[Tensor], Tensor]):
        super().__init__()
        self.encoder, self.noise = encoder, noise

    def forward(self, x: Tensor, *conditions: Tensor) -> Tensor:
        """The features for x of shape (B, *event_shape), and for conditions, which are not corrupted."""
        return self.encoder(self.noise(x) if self.training else x, *conditions)


class MaskingNoise(nn.Module):
    """Sets each element to 0 with a probability, in training mode and in evaluation mode; missing ones (NaN) stay.

    Args:
        probability: from 0 to 1.

    Raises ValueError for another probability.

    Example:

        >>> MaskingNoise(0.0)(torch.ones(3)), MaskingNoise(1.0)(torch.ones(3))
        (tensor([1., 1., 1.]), tensor([0., 0., 0.]))
    """

    def __init__(self, probability: float):
        super().__init__()
        if not 0 <= probability <= 1:
            raise ValueError(f"expected a probability from 0 to 1, got {probability}")
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        """x with some elements set to 0."""
        return x.masked_fill((torch.rand_like(x) < self.probability) & ~x.isnan(), 0.0)


class GaussianNoise(nn.Module):
    """Adds N(0, scale^2) to each element, in training mode and in evaluation mode.

    Args:
        scale: standard deviation, at least 0.

    Raises ValueError for another scale.

    Example:

        >>> GaussianNoise(0.0)(torch.ones(3))
        tensor([1., 1., 1.])
    """

    def __init__(self, scale: float):
        super().__init__()
        if not 0 <= scale < float("inf"):
            raise ValueError(f"expected a finite scale of at least 0, got {scale}")
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """x with noise."""
        return x + self.scale * torch.randn_like(x)
