"""Functions of tensors that are slow or less exact in torch.

On a CPU torch's float32 ``log1p``, ``softplus`` and ``logsigmoid`` take 3 to 20 times as long as its ``log`` and
``sigmoid``. The functions here use

    log sigmoid(l) = (l - |l|) / 2 + log sigmoid(|l|)

where each factor sigmoid(|l|) lies in [1/2, 1]. A product of eight factors is at least 2^-8 and keeps its digits, so a
sum needs one logarithm for eight elements.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

FACTORS = 8  # elements for each logarithm


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)) of each element, with gradient sigmoid(x).

    The absolute error is one rounding in the type of x. float64 keeps the relative precision for negative x as well.

    Example:

        >>> softplus(torch.tensor([-1.0, 0.0, 100.0]))
        tensor([  0.3133,   0.6931, 100.0000])
    """
    if x.dtype == torch.float64:  # its log1p is fast
        return F.softplus(x, threshold=40.0)  # above 40 the result is x to the last digit
    return -bernoulli_log_prob(x.new_zeros(()), x, 0)


def bernoulli_log_prob(value: Tensor, logits: Tensor, event_dim: int) -> Tensor:
    """log p(value) of independent Bernoulli variables, summed over the rightmost dimensions, in nats.

        sum_d  v_d log sigmoid(l_d) + (1 - v_d) log sigmoid(-l_d)
            =  sum_d  (v_d - 1/2) l_d - |l_d| / 2 + log sigmoid(|l_d|)

    For value 1 this is a sum of log sigmoid(l), for value 0 a sum of - softplus(l). The gradient for l is
    v - sigmoid(l), at l = 0 too.

    Args:
        value: v, in [0, 1]; shape (..., *event_shape).
        logits: l, any real numbers; shape (..., *event_shape). The two broadcast.
        event_dim: number of rightmost dimensions that are summed over; 0 for the terms themselves.

    Returns a tensor of the broadcast shape without its last ``event_dim`` dimensions.

    Example:

        >>> bernoulli_log_prob(torch.tensor([1.0, 0.0]), torch.tensor([[2.0, -1.0], [0.0, 0.0]]), 1)
        tensor([-0.4402, -1.3863])
    """
    return _BernoulliLogProb.apply(value, logits, event_dim)


def indicators(classes: Tensor, num_classes: int) -> Tensor:
    """1 at the class and 0 at the others, (...) -> (..., num_classes), in torch's default floating type.

    Unlike ``torch.nn.functional.one_hot`` it reads no number from the device. Another class has zeros only.

    Example:

        >>> indicators(torch.tensor([2, 0]), 3)
        tensor([[0., 0., 1.],
                [1., 0., 0.]])
    """
    return (classes.unsqueeze(-1) == torch.arange(num_classes, device=classes.device)).to(torch.get_default_dtype())


class _BernoulliLogProb(torch.autograd.Function):
    """:func:`bernoulli_log_prob`, with a gradient that is one pass over the elements and differentiable itself."""

    generate_vmap_rule = True

    @staticmethod
    def forward(value: Tensor, logits: Tensor, event_dim: int) -> Tensor:
        size = logits.abs()
        linear = ((value + -0.5) * logits).sub_(size, alpha=0.5)  # summed at once: two large sums would cancel
        return _summed(linear, event_dim) + _sum_of_logs(size.sigmoid_(), event_dim)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
        value, logits, ctx.event_dim = inputs
        ctx.save_for_backward(value, logits)
        ctx.save_for_forward(value, logits)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        value, logits = ctx.saved_tensors
        gradient = gradient.reshape(gradient.shape + (1,) * ctx.event_dim)
        of_value = (gradient * logits).sum_to_size(value.shape) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return of_value, None, None
        return of_value, (gradient * (value - logits.sigmoid())).sum_to_size(logits.shape), None

    @staticmethod
    def jvp(ctx: Any, value_tangent: Tensor | None, logits_tangent: Tensor | None, _: None) -> Tensor:
        value, logits = ctx.saved_tensors
        tangent = torch.zeros_like(value + logits)
        if value_tangent is not None:
            tangent = tangent + value_tangent * logits
        if logits_tangent is not None:
            tangent = tangent + logits_tangent * (value - logits.sigmoid())
        return _summed(tangent, ctx.event_dim)


def _summed(x: Tensor, event_dim: int) -> Tensor:
    return x.flatten(x.dim() - event_dim).sum(-1) if event_dim else x


def _sum_of_logs(factors: Tensor, event_dim: int) -> Tensor:
    """The sum of log(factors) over the rightmost dimensions, from products of eight factors and of the rest."""
    if not event_dim:
        return factors.log()
    factors = factors.flatten(factors.dim() - event_dim)
    whole = factors.shape[-1] // FACTORS * FACTORS
    total = factors[..., :whole].unflatten(-1, (FACTORS, -1)).prod(-2).log().sum(-1)
    return total if whole == factors.shape[-1] else total + factors[..., whole:].prod(-1).log()
