"""Fully connected networks of an input, of several inputs, or of an input and a class label."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ppvae.nn.functional import indicators

Shape = int | Sequence[int]
Activation = Callable[[], nn.Module]


@dataclass(frozen=True)
class Classes:
    """A class label, a whole number from 0 to ``number - 1``, as an input of :class:`JointMLP`.

    Its place in the concatenated input is a one-hot vector. A label has no event dimension: its shape is (...).

    Raises ValueError without a class.

    Example:

        >>> import torch
        >>> JointMLP([5, Classes(3)], [16], 2)(torch.zeros(4, 5), torch.tensor([0, 2, 1, 1])).shape
        torch.Size([4, 2])
    """

    number: int

    def __post_init__(self) -> None:
        if self.number < 1:
            raise ValueError(f"expected at least one class, got {self.number}")


class MLP(nn.Module):
    """Fully connected network: (..., *in_shape) -> (..., *out_shape).

    Args:
        in_shape: event shape of the input, or its length.
        hidden: widths of the hidden layers; empty for a linear map.
        out_shape: event shape of the output, or its length.
        activation: constructor of the nonlinearity after each hidden layer.

    Example:

        >>> import torch
        >>> MLP((8, 8), [32, 16], 4)(torch.zeros(5, 8, 8)).shape
        torch.Size([5, 4])
    """

    def __init__(self, in_shape: Shape, hidden: Sequence[int], out_shape: Shape, activation: Activation = nn.ReLU):
        super().__init__()
        self.in_shape, self.out_shape = as_shape(in_shape), as_shape(out_shape)
        widths = [math.prod(self.in_shape), *hidden, math.prod(self.out_shape)]
        self.layers = linear_layers(widths, activation)

    def forward(self, x: Tensor) -> Tensor:
        """The output for x of shape (..., *in_shape)."""
        return unflatten(self.layers(flatten_event(x, self.in_shape)), self.out_shape)


class JointMLP(nn.Module):
    """Fully connected network of several inputs: (..., *in_shape) for each of them -> (..., *out_shape).

    It computes the network of the concatenated inputs, whose first layer is sum_i W_i x_i + b. The leading dimensions
    of the inputs broadcast, and each input is multiplied once: with latents of shape (K, B, D), a condition of
    shape (B, C) is not repeated for each particle.

    Args:
        in_shapes: event shape or length of each input, or ``Classes(number)`` for a class label.
        hidden: widths of the hidden layers; empty for a linear map.
        out_shape: event shape of the output, or its length.
        activation: constructor of the nonlinearity after each hidden layer.

    Raises ValueError for another number of inputs.

    Example:

        >>> import torch
        >>> JointMLP([3, (4, 4)], [16], (8, 8))(torch.zeros(7, 5, 3), torch.zeros(5, 4, 4)).shape
        torch.Size([7, 5, 8, 8])
    """

    def __init__(
        self,
        in_shapes: Sequence[Shape | Classes],
        hidden: Sequence[int],
        out_shape: Shape,
        activation: Activation = nn.ReLU,
    ):
        super().__init__()
        self.in_shapes = [shape if isinstance(shape, Classes) else as_shape(shape) for shape in in_shapes]
        self.out_shape = as_shape(out_shape)
        widths = [*hidden, math.prod(self.out_shape)]
        self.first = nn.ModuleList(_first_layer(shape, widths[0], i == 0) for i, shape in enumerate(self.in_shapes))
        sizes = [shape.number if isinstance(shape, Classes) else math.prod(shape) for shape in self.in_shapes]
        bound = sum(sizes) ** -0.5  # nn.Linear's range for the concatenated input
        for parameter in self.first.parameters():
            nn.init.uniform_(parameter, -bound, bound)
        self.rest = nn.Sequential(activation(), *linear_layers(widths, activation)) if hidden else nn.Identity()

    def forward(self, *inputs: Tensor) -> Tensor:
        """The output for inputs of shapes (..., *in_shape), and (...) for a label."""
        if len(inputs) != len(self.in_shapes):
            raise ValueError(
                f"expected {len(self.in_shapes)} inputs, got {len(inputs)}; an encoder takes x and then the conditions "
                "that are named in conditions="
            )
        parts = zip(self.first, inputs, self.in_shapes, strict=True)
        joint = sum(layer(x if isinstance(shape, Classes) else flatten_event(x, shape)) for layer, x, shape in parts)
        return unflatten(self.rest(joint), self.out_shape)


def _first_layer(shape: tuple[int, ...] | Classes, width: int, bias: bool) -> nn.Module:
    """The part of the first layer that reads one input. A table of classes has its bias in every row."""
    if isinstance(shape, Classes):
        return nn.Embedding(shape.number, width)
    return nn.Linear(math.prod(shape), width, bias=bias)


class LabelledLinear(nn.Module):
    """W x + V[y] + b: the linear layer of [x, one-hot(y)], which multiplies x once for all classes.

    ``x`` has shape (..., in_features) and ``y`` any shape that broadcasts with x's leading dimensions: with y of shape
    (C, 1, 1) over all C classes the product W x is still computed once.

    Args:
        in_features: length of x.
        num_classes: number of classes of y.
        out_features: length of the output.

    Example:

        >>> import torch
        >>> LabelledLinear(5, num_classes=3, out_features=7)(torch.zeros(2, 5), torch.arange(3).reshape(3, 1)).shape
        torch.Size([3, 2, 7])
    """

    def __init__(self, in_features: int, num_classes: int, out_features: int):
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)
        self.embedding = nn.Embedding(num_classes, out_features)
        # nn.Linear's range for the concatenated input: the layer is initialised as the usual one.
        bound = (in_features + num_classes) ** -0.5
        for weight in (self.linear.weight, self.linear.bias, self.embedding.weight):
            nn.init.uniform_(weight, -bound, bound)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The output for x (..., in_features) and labels y (...)."""
        return self.linear(x) + self.embedding(y)


class LabelledMLP(nn.Module):
    """Fully connected network of x and a class: (..., *in_shape), (...) -> (..., *out_shape).

    Args:
        in_shape: event shape of x, or its length.
        num_classes: number of classes of y.
        hidden: widths of the hidden layers, at least one.
        out_shape: event shape of the output, or its length.
        activation: constructor of the nonlinearity after each hidden layer.

    Raises ValueError without a hidden layer.

    Example:

        >>> import torch
        >>> LabelledMLP(2, 3, [16], (8, 8))(torch.zeros(5, 2), torch.zeros(5, dtype=torch.long)).shape
        torch.Size([5, 8, 8])
    """

    def __init__(
        self,
        in_shape: Shape,
        num_classes: int,
        hidden: Sequence[int],
        out_shape: Shape,
        activation: Activation = nn.ReLU,
    ):
        super().__init__()
        if not hidden:
            raise ValueError("expected at least one hidden layer, got none: y would only shift the output")
        self.in_shape, self.out_shape = as_shape(in_shape), as_shape(out_shape)
        self.first = LabelledLinear(math.prod(self.in_shape), num_classes, hidden[0])
        self.rest = nn.Sequential(activation(), *linear_layers([*hidden, math.prod(self.out_shape)], activation))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The output for x (..., *in_shape) and labels y of a shape that broadcasts with (...)."""
        return unflatten(self.rest(self.first(flatten_event(x, self.in_shape), y)), self.out_shape)


class AppendLabel(nn.Module):
    """A network of [x, one-hot(y)] as a network of x and a class: (..., D), (...) -> what the network gives.

    It makes any network, such as ``ConvDecoder``, one of x and y. With y of shape (C, 1, 1) over all C classes the
    whole network runs for each class; :class:`LabelledMLP` multiplies x once.

    Args:
        network: module of (..., D + num_classes).
        num_classes: number of classes of y.

    Example:

        >>> import torch
        >>> AppendLabel(MLP(2 + 3, [16], (8, 8)), 3)(torch.zeros(5, 2), torch.arange(3).reshape(3, 1)).shape
        torch.Size([3, 5, 8, 8])
    """

    def __init__(self, network: nn.Module, num_classes: int):
        super().__init__()
        self.network, self.num_classes = network, num_classes

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The output for x (..., D) and labels y of a shape that broadcasts with (...)."""
        leading = torch.broadcast_shapes(x.shape[:-1], y.shape)
        label = indicators(y, self.num_classes).to(x.dtype)
        return self.network(torch.cat([part.expand(*leading, -1) for part in (x, label)], -1))


def as_shape(shape: Shape) -> tuple[int, ...]:
    """An event shape from a length or a sequence of lengths.

    Example:

        >>> as_shape(3), as_shape([8, 8])
        ((3,), (8, 8))
    """
    return (shape,) if isinstance(shape, int) else tuple(shape)


def flatten_event(x: Tensor, event_shape: tuple[int, ...]) -> Tensor:
    """(..., *event_shape) -> (..., product of event_shape). Raises ValueError for an input of another shape.

    Example:

        >>> import torch
        >>> flatten_event(torch.zeros(5, 8, 8), (8, 8)).shape
        torch.Size([5, 64])
    """
    if tuple(x.shape[x.dim() - len(event_shape) :]) != event_shape:
        raise ValueError(f"expected an input of shape (..., {', '.join(map(str, event_shape))}), got {tuple(x.shape)}")
    return x.flatten(x.dim() - len(event_shape)) if len(event_shape) > 1 else x


def unflatten(output: Tensor, event_shape: tuple[int, ...]) -> Tensor:
    """(..., product of event_shape) -> (..., *event_shape).

    Example:

        >>> import torch
        >>> unflatten(torch.zeros(5, 64), (8, 8)).shape
        torch.Size([5, 8, 8])
    """
    return output.unflatten(-1, event_shape) if len(event_shape) > 1 else output


def linear_layers(widths: Sequence[int], activation: Activation) -> nn.Sequential:
    """Linear maps from each width to the next, with the nonlinearity between them.

    Example:

        >>> len(linear_layers([5, 8, 3], nn.ReLU))
        3
    """
    layers: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), activation()]
    return nn.Sequential(*layers[:-1])
