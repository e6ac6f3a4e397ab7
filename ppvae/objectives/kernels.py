"""Divergences between densities from draws, by positive definite kernels k(z, z') = f(|z - z'|^2)."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor


class Kernel(ABC):
    """f, for z of D elements."""

    @abstractmethod
    def derivatives(self, squared: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor]:
        """f, f' and f'' at squared distances of z of ``dim`` elements."""

    def __call__(self, squared: Tensor, dim: int) -> Tensor:
        return self.derivatives(squared, dim)[0]


class RBF(Kernel):
    """f(s) = exp(- s / (2 scale^2)).

    Args:
        scale: in units of z; None for (D / 2)^(1/2).
    """

    def __init__(self, scale: float | None = None):
        self.scale = None if scale is None else _positive("scale", scale)

    def derivatives(self, squared: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor]:
        rate = 1 / dim if self.scale is None else 1 / (2 * self.scale**2)
        value = (-rate * squared).exp()
        return value, -rate * value, rate**2 * value


class InverseMultiquadratic(Kernel):
    """f(s) = sum over scales of c / (c + s), c = 2 D scale: heavy tails, so that what lies far out is felt.

    2 D is the mean squared distance of two draws of a standard normal.

    Args:
        scales: as many kernels, added.

    Source: Tolstikhin et al. 2018, "Wasserstein Auto-Encoders", section 4 (several scales: its published code).
    """

    def __init__(self, scales: Sequence[float] = (1.0,)):
        self.scales = tuple(_positive("scales", scale) for scale in scales)
        if not self.scales:
            raise ValueError("expected at least one scale, got none")

    def derivatives(self, squared: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor]:
        parts = [_inverse(2 * dim * scale, squared) for scale in self.scales]
        return tuple(sum(part) for part in zip(*parts, strict=True))


def mmd(x: Tensor, y: Tensor, kernel: Kernel) -> Tensor:
    """Unbiased estimate of E k(x, x') + E k(y, y') - 2 E k(x, y), the squared maximum mean discrepancy, shape (...).

    Args:
        x: independent draws of one density, (..., M, D), M >= 2.
        y: of the other, (..., N, D), N >= 2.
        kernel: k.

    Source: Gretton et al. 2012, "A Kernel Two-Sample Test", lemma 6.
    """
    dim = x.shape[-1]
    within = sum(_mean_of_pairs(kernel(squared_distances(z, z), dim)) for z in (x, y))
    return within - 2 * kernel(squared_distances(x, y), dim).mean((-2, -1))


def stein_discrepancy(x: Tensor, score: Tensor, kernel: Kernel) -> Tensor:
    """Unbiased estimate of the squared kernelised Stein discrepancy from q to p, shape (...):

        E_{x, x' ~ q} [ s(x).s(x') k + s(x).grad_x' k + s(x').grad_x k + tr grad_x grad_x' k ],    s = grad log p

    0 for q = p alone. It asks for draws of q only and for p only up to a constant.

    Args:
        x: independent draws of q, (..., M, D), M >= 2.
        score: s(x), of the same shape.
        kernel: k.

    Source: Liu, Lee and Jordan 2016, "A Kernelized Stein Discrepancy for Goodness-of-fit Tests", theorem 3.6.
    """
    squared = squared_distances(x, x)
    value, first, second = kernel.derivatives(squared, x.shape[-1])
    along = (score * x).sum(-1)  # s(x).(x - x') and its mirror image, of which gradients of k are multiples
    own = along.unsqueeze(-1) - score @ x.mT
    crossed = -2 * first * (own + own.mT)
    trace = -2 * x.shape[-1] * first - 4 * second * squared
    return _mean_of_pairs(score @ score.mT * value + crossed + trace)


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """|x_i - y_j|^2, shape (..., M, N)."""
    return (x.unsqueeze(-2) - y.unsqueeze(-3)).square().sum(-1)


def _mean_of_pairs(matrix: Tensor) -> Tensor:
    """Over i != j, of (..., M, M)."""
    rows = matrix.shape[-1]
    return (matrix.sum((-2, -1)) - matrix.diagonal(dim1=-2, dim2=-1).sum(-1)) / (rows * (rows - 1))


def _inverse(c: float, squared: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    share = c / (c + squared)
    return share, -share.square() / c, 2 * share**3 / c**2


def _positive(name: str, value: float) -> float:
    if not value > 0:
        raise ValueError(f"expected {name} above 0, got {value}")
    return value
