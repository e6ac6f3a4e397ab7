"""Divergences between densities from draws, by positive definite kernels k(z, z') = f(|z - z'|^2)."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor


class Kernel(ABC):
    """f, with f(0) = 1 for each of its scales."""

    @abstractmethod
    def derivatives(self, squared: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """f, f' and f'' at squared distances."""

    def __call__(self, squared: Tensor) -> Tensor:
        return self.derivatives(squared)[0]


class RBF(Kernel):
    """f(s) = exp(- s / (2 scale^2)).

    Args:
        scale: in units of z.
    """

    def __init__(self, scale: float):
        self.scale = _positive("scale", scale)

    def derivatives(self, squared: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rate = 1 / (2 * self.scale**2)
        value = (-rate * squared).exp()
        return value, -rate * value, rate**2 * value


class InverseMultiquadratic(Kernel):
    """f(s) = mean over scales of c / (c + s), c = 2 latent_dim scale^2: heavy tails, so that what lies far out is felt.

    Args:
        latent_dim: D; 2 D is the mean squared distance of two draws of a standard normal.
        scales: as many kernels, averaged.

    Source: Tolstikhin et al. 2018, "Wasserstein Auto-Encoders", section 4 (the scales: its code).
    """

    def __init__(self, latent_dim: int, scales: Sequence[float] = (1.0,)):
        self.latent_dim, self.scales = latent_dim, tuple(_positive("scales", scale) for scale in scales)
        if not self.scales or latent_dim < 1:
            raise ValueError(f"expected latent_dim of at least 1 and a scale, got {latent_dim} and {scales}")

    def derivatives(self, squared: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        parts = [_inverse(2 * self.latent_dim * scale**2, squared) for scale in self.scales]
        return tuple(sum(part) / len(self.scales) for part in zip(*parts, strict=True))


def mmd(x: Tensor, y: Tensor, kernel: Kernel) -> Tensor:
    """Unbiased estimate of E k(x, x') + E k(y, y') - 2 E k(x, y), the squared maximum mean discrepancy, shape (...).

    Args:
        x: independent draws of one density, (..., M, D), M >= 2.
        y: of the other, (..., N, D), N >= 2.
        kernel: k.

    Source: Gretton et al. 2012, "A Kernel Two-Sample Test", lemma 6.
    """
    within = sum(_mean_of_pairs(kernel(squared_distances(z, z))) for z in (x, y))
    return within - 2 * kernel(squared_distances(x, y)).mean((-2, -1))


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
    value, first, second = kernel.derivatives(squared)
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
