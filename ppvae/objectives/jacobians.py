"""The squared size of a Jacobian matrix, of each datum."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ppvae.errors import require_count


def squared_jacobian(output: Tensor, at: Tensor, leading: int, num_probes: int | None) -> Tensor:
    """|J|^2 = sum_ij (d output_i / d at_j)^2 of each row, with a gradient.

        |J|^2 = E |J' u|^2,    u a vector of independent signs, each +1 or -1 with probability 1/2

    Args:
        output: a function of ``at``, where each row depends on its own row of ``at`` alone; (*rows, *event shape).
        at: (*rows, *event shape), with ``requires_grad``.
        leading: number of dimensions of the rows.
        num_probes: vectors u, each one backward pass: the mean over them is unbiased. None for the exact value, one
            backward pass for each element of a row's output.

    Returns a tensor of shape (*rows,).

    Example:

        >>> x = torch.randn(3, 4, requires_grad=True)
        >>> matrix = torch.tensor([[1.0, 2.0, 0.0, 0.0], [0.0, 0.0, 3.0, 0.0]])
        >>> squared_jacobian(x @ matrix.T, x, leading=1, num_probes=None)
        tensor([14., 14., 14.])
    """
    rows = output.shape[:leading]
    flat = output.reshape(*rows, -1)
    squares = [_backward(flat, at, probe).reshape(*rows, -1).square().sum(-1) for probe in _probes(flat, num_probes)]
    return torch.stack(squares).sum(0) / (num_probes or 1)


def require_probes(num_probes: int | None) -> int | None:
    """The number of probes. Raises an error unless it is None or a whole number of at least 1.

    Example:

        >>> require_probes(None), require_probes(3)
        (None, 3)
    """
    return None if num_probes is None else require_count("num_probes", num_probes)


def _probes(flat: Tensor, num_probes: int | None) -> Iterator[Tensor]:
    if num_probes is None:
        yield from (row.expand_as(flat) for row in torch.eye(flat.shape[-1], dtype=flat.dtype, device=flat.device))
    else:
        yield from (torch.randn_like(flat).sign() for _ in range(num_probes))


def _backward(flat: Tensor, at: Tensor, probe: Tensor) -> Tensor:
    """J' u of each row."""
    (found,) = torch.autograd.grad(flat, at, probe, create_graph=True, allow_unused=True, materialize_grads=True)
    return found
