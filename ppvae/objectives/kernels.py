"""Kernel divergences, estimated from draws of densities, with positive definite kernels k(z, z') = f(|z - z'|^2)."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor


class Kernel(ABC):
    """A kernel k(z, z') = f(|z - z'|^2), as a function of squared distances and of the number D of elements of z.

    Subclasses define :meth:`derivatives`.

    Example:

        >>> import ppvae
        >>> import torch
        >>> from ppvae.objectives.kernels import Kernel
        >>> class Exponential(Kernel):
        ...     def derivatives(self, squared, dim):
        ...         value = (-squared).exp()
        ...         return value, -value, value
        >>> Exponential()(torch.tensor([0.0, 1.0]), dim=2)
        tensor([1.0000, 0.3679])
    """

    @abstractmethod
    def derivatives(self, squared: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor]:
        """f, f' and f'' at squared distances between z of ``dim`` elements, each of the shape of ``squared``."""

    def __call__(self, squared: Tensor, dim: int) -> Tensor:
        """f at squared distances between z of ``dim`` elements."""
        return self.derivatives(squared, dim)[0]


class RBF(Kernel):
    """f(s) = exp(- s / (2 scale^2)).

    Args:
        scale: above 0, in units of z; None for (D / 2)^(1/2).

    Raises ValueError for another scale.

    Example:

        >>> import ppvae
        >>> import torch
        >>> from ppvae.objectives.kernels import RBF
        >>> RBF(1.0)(torch.tensor([0.0, 2.0]), dim=3)
        tensor([1.0000, 0.3679])
    """

    def __init__(self, scale: float | None = None):
        self.scale = None if scale is None else _positive("scale", scale)

    def derivatives(self, squared: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor]:
        """f, f' and f'' at squared distances."""
        rate = 1 / dim if self.scale is None else 1 / (2 * self.scale**2)
        value = (-rate * squared).exp()
        return value, -rate * value, rate**2 * value


class InverseMultiquadratic(Kernel):
    """f(s) = sum over scales of c / (c + s), with c = 2 D scale.

    Its tails are heavy, so distant draws still have a gradient. 2 D is the mean squared distance between two draws of a
    standard normal.

    Args:
        scales: one term for each, all above 0.

    Raises ValueError for other scales.

    Source: Tolstikhin et al. 2018, "Wasserstein Auto-Encoders", section 4; the sum over scales is in its published
    code.

    Example:

        >>> import ppvae
        >>> import torch
        >>> from ppvae.objectives.kernels import InverseMultiquadratic
        >>> InverseMultiquadratic()(torch.tensor([0.0, 4.0]), dim=2)
        tensor([1.0000, 0.5000])
    """

    def __init__(self, scales: Sequence[float] = (1.0,)):
        self.scales = tuple(_positive("scales", scale) for scale in scales)
        if not self.scales:
            raise ValueError("expected at least one scale, got none")

    def derivatives(self, squared: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor]:
        """f, f' and f'' at squared distances."""
        parts = [_inverse(2 * dim * scale, squared) for scale in self.scales]
        return tuple(sum(part) for part in zip(*parts, strict=True))


def mmd(x: Tensor, y: Tensor, kernel: Kernel) -> Tensor:
    """Unbiased estimate of the squared maximum mean discrepancy, E k(x, x') + E k(y, y') - 2 E k(x, y), shape (...).

    Args:
        x: independent draws of one density, shape (..., M, D), M at least 2.
        y: independent draws of the other, shape (..., N, D), N at least 2.
        kernel: k.

    Raises ValueError for fewer draws.

    Source: Gretton et al. 2012, "A Kernel Two-Sample Test", lemma 6.

    Example:

        >>> import ppvae
        >>> import torch
        >>> from ppvae.objectives.kernels import RBF, mmd
        >>> x, y = torch.zeros(2, 1), torch.full((2, 1), 100.0)
        >>> mmd(x, y, RBF(1.0))  # E k(x, x') = E k(y, y') = 1 and E k(x, y) = 0
        tensor(2.)
    """
    dim = x.shape[-1]
    within = sum(_mean_of_pairs(kernel(squared_distances(z, z), dim)) for z in (x, y))
    return within - 2 * kernel(squared_distances(x, y), dim).mean((-2, -1))


def stein_discrepancy(x: Tensor, score: Tensor, kernel: Kernel) -> Tensor:
    """Unbiased estimate of the squared kernelised Stein discrepancy from q to p, shape (...):

        E_{x, x' ~ q} [ s(x).s(x') k + s(x).grad_x' k + s(x').grad_x k + tr grad_x grad_x' k ],    s = grad log p

    The discrepancy is 0 only for q = p. It requires draws of q, and p up to a constant factor.

    Args:
        x: independent draws of q, shape (..., M, D), M at least 2.
        score: s(x), of the same shape.
        kernel: k.

    Raises ValueError for fewer draws.

    Source: Liu, Lee and Jordan 2016, "A Kernelized Stein Discrepancy for Goodness-of-fit Tests", theorem 3.6.

    Example:

        >>> import ppvae
        >>> import torch
        >>> from ppvae.objectives.kernels import RBF, stein_discrepancy
        >>> x = torch.tensor([[0.0], [1.0]])
        >>> stein_discrepancy(x, -x, RBF(1.0))  # p = N(0, 1): (s.s' - 1 + 1 - 1) exp(-1/2)
        tensor(-0.6065)
    """
    squared = squared_distances(x, x)
    value, first, second = kernel.derivatives(squared, x.shape[-1])
    own = (score * x).sum(-1, keepdim=True) - score @ x.mT  # s(x).(x - x'); grad_x' k = -2 f' (x - x')
    crossed = -2 * first * (own + own.mT)
    trace = -2 * x.shape[-1] * first - 4 * second * squared
    return _mean_of_pairs(score @ score.mT * value + crossed + trace)


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """|x_i - y_j|^2, shape (..., M, N), for x (..., M, D) and y (..., N, D).

    Example:

        >>> import ppvae
        >>> import torch
        >>> from ppvae.objectives.kernels import squared_distances
        >>> squared_distances(torch.tensor([[0.0], [3.0]]), torch.tensor([[1.0]])).tolist()
        [[1.0], [4.0]]
    """
    return (x.unsqueeze(-2) - y.unsqueeze(-3)).square().sum(-1)


def _mean_of_pairs(matrix: Tensor) -> Tensor:
    """Mean over i != j of a matrix (..., M, M)."""
    rows = matrix.shape[-1]
    if rows < 2:
        raise ValueError(f"expected at least 2 draws of each density, got {rows}")
    return (matrix.sum((-2, -1)) - matrix.diagonal(dim1=-2, dim2=-1).sum(-1)) / (rows * (rows - 1))


def _inverse(c: float, squared: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """c / (c + s) with its first and second derivative."""
    share = c / (c + squared)
    return share, -share.square() / c, 2 * share**3 / c**2


def _positive(name: str, value: float) -> float:
    if not value > 0:
        raise ValueError(f"expected {name} above 0, got {value}")
    return value
