"""Unnormalised log densities u (draws, B, D) -> (draws, B) to fit Gaussians to, and proposals of a user."""

import math
from collections.abc import Callable

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from ppvae.distributions.gaussians import FullGaussian
from ppvae.evaluation.likelihood.proposals import Laplace


def standard(data: int, dim: int, dtype: torch.dtype = torch.float64) -> FullGaussian:
    """N(0, I) for each datum."""
    return FullGaussian(torch.zeros(data, dim, dtype=dtype), torch.eye(dim, dtype=dtype).expand(data, dim, dim))


def gaussian(data: int, dim: int, spread: float = 1.0) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
    """Mean, covariance and log density of a correlated Gaussian for each datum."""
    mean = 3 * torch.randn(data, dim).double()
    root = spread * (torch.randn(data, dim, dim).double() + torch.eye(dim).double())
    covariance = root @ root.mT + 0.1 * spread**2 * torch.eye(dim).double()
    q = torch.distributions.MultivariateNormal(mean, covariance, validate_args=False)
    return mean, covariance, lambda u: q.log_prob(u) - 7


class OnceDifferentiable(torch.autograd.Function):
    """-u^2 / 2, the gradient of which has no derivative."""

    @staticmethod
    def forward(ctx, u):
        ctx.save_for_backward(u)
        return -0.5 * u.square()

    @staticmethod
    @once_differentiable
    def backward(ctx, slope):
        (u,) = ctx.saved_tensors
        return -u * slope


class HeavyTailed:
    """A Student distribution around the start."""

    def fit(self, log_joint, start):
        return dist.MultivariateStudentT(start.loc.new_tensor(3.0), start.loc, 2 * start.scale_tril)


class Moved:
    """The Laplace approximation, moved by 1.5 standard deviations; NaN for some rows of each block."""

    draws = 4

    def __init__(self, broken=()):
        self.broken = torch.tensor(broken, dtype=torch.long)

    def fit(self, log_joint, start):
        q = Laplace(scale=1.0).fit(log_joint, start)
        loc = q.at(torch.full_like(q.loc, 1.5))
        loc[self.broken[self.broken < len(loc)]] = math.nan
        return FullGaussian(loc, q.scale_tril)
