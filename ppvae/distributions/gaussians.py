"""Gaussians over vectors, and a Student t."""

import math
from collections.abc import Sequence

import torch
from pyro import distributions as dist
from torch import Tensor


def standard_normal(template: Tensor, dim: int) -> dist.TorchDistribution:
    """N(0, I) over vectors of length ``dim``, with the type and device of ``template``.

    Example:

        >>> standard_normal(torch.zeros(3, 5), 2).event_shape
        torch.Size([2])
    """
    zero = torch.zeros((), dtype=template.dtype, device=template.device)
    return dist.Normal(zero, zero + 1).expand([dim]).to_event(1)


def diagonal_normal(features: Tensor) -> dist.TorchDistribution:
    """Diagonal Gaussian over vectors of length D.

    Args:
        features: shape (..., 2 D): D means, then D logs of standard deviations.

    Raises ValueError for an odd number of features.

    Example:

        >>> diagonal_normal(torch.zeros(3, 4)).log_prob(torch.zeros(2))
        tensor([-1.8379, -1.8379, -1.8379])
    """
    if features.shape[-1] % 2:
        raise ValueError(f"expected an even number of features, means then log scales, got {features.shape[-1]}")
    loc, log_scale = features.chunk(2, -1)
    return dist.Normal(loc, log_scale.exp()).to_event(1)


def times(matrix: Tensor, vectors: Tensor) -> Tensor:
    """Matrices (B, D, D) times vectors (..., B, D).

    Example:

        >>> times(2 * torch.eye(2).unsqueeze(0), torch.ones(3, 1, 2)).shape
        torch.Size([3, 1, 2])
    """
    return torch.einsum("bij,...bj->...bi", matrix, vectors)


class FullGaussian(dist.MultivariateNormal):
    """N(loc, L L') of each of B data, with one matrix product for all draws.

    Args:
        loc: shape (B, D).
        scale_tril: L, lower triangular with a positive diagonal, shape (B, D, D).

    Example:

        >>> q = FullGaussian(torch.zeros(3, 2), torch.eye(2).expand(3, 2, 2))
        >>> q.at(torch.ones(5, 3, 2)).shape, q.sample((5,)).shape
        (torch.Size([5, 3, 2]), torch.Size([5, 3, 2]))
    """

    def __init__(self, loc: Tensor, scale_tril: Tensor):
        super().__init__(loc, scale_tril=scale_tril, validate_args=False)

    def at(self, e: Tensor) -> Tensor:
        """loc + L e, for standard normal e of shape (draws, B, D) or (B, D)."""
        return self.loc + times(self.scale_tril, e)

    def draw(self, num_draws: int) -> tuple[Tensor, Tensor]:
        """Draws u = loc + L e, shape (num_draws, B, D), and log q(u), (num_draws, B), from e.

        ``log_prob`` solves for e, which loses every digit where L is badly conditioned.
        """
        e = _normal_noise(self.loc, num_draws)
        log_q = -0.5 * e.square().sum(-1) - 0.5 * e.shape[-1] * math.log(2 * math.pi)
        return self.at(e), log_q - _log_volume(self.scale_tril)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws, shape (*sample_shape, B, D)."""
        shape = self._extended_shape(tuple(sample_shape))
        e = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        return self.at(e.reshape(-1, *self.loc.shape)).reshape(shape)

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> dist.MultivariateNormal:
        """The same Gaussians with more batch dimensions."""
        return dist.MultivariateNormal(self.loc, scale_tril=self.scale_tril, validate_args=False).expand(batch_shape)


class FullStudentT(dist.MultivariateStudentT):
    """Multivariate Student t of each of B data, with one matrix product for all draws: loc + L e / sqrt(c / df).

    e ~ N(0, I), c ~ chi-squared of ``df`` degrees of freedom.

    Args:
        df: degrees of freedom.
        loc: shape (B, D).
        scale_tril: L, lower triangular with a positive diagonal, shape (B, D, D).

    Example:

        >>> q = FullStudentT(5.0, torch.zeros(3, 2), torch.eye(2).expand(3, 2, 2))
        >>> u, log_q = q.draw(7)
        >>> torch.allclose(log_q, q.log_prob(u), atol=1e-5)
        True
    """

    def __init__(self, df: float, loc: Tensor, scale_tril: Tensor):
        super().__init__(df, loc, scale_tril, validate_args=False)

    def draw(self, num_draws: int) -> tuple[Tensor, Tensor]:
        """Draws u, shape (num_draws, B, D), and log q(u), (num_draws, B), from the noise; see FullGaussian.draw."""
        dim, half = self.loc.shape[-1], (self.df + self.loc.shape[-1]) / 2
        scale = (self.df / self._chi2.sample((num_draws,))).sqrt()
        e = _normal_noise(self.loc, num_draws) * scale.unsqueeze(-1)
        log_q = torch.lgamma(half) - torch.lgamma(self.df / 2) - 0.5 * dim * (self.df * math.pi).log()
        log_q = log_q - half * (e.square().sum(-1) / self.df).log1p()
        return self.loc + times(self.scale_tril, e), log_q - _log_volume(self.scale_tril)


def _normal_noise(loc: Tensor, num_draws: int) -> Tensor:
    return torch.randn(num_draws, *loc.shape, dtype=loc.dtype, device=loc.device)


def _log_volume(scale_tril: Tensor) -> Tensor:
    """log |det L|, shape (B,)."""
    return scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
