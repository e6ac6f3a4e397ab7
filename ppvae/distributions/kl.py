"""Closed forms of KL(q || p), in nats.

torch registers closed forms by family. Some do not broadcast (Bernoulli, Beta against Uniform), some are infinite where
the divergence is finite (ContinuousBernoulli against Uniform(0, 1), and the reverse), and there is none for a full
covariance against a diagonal one. :func:`closed_form_kl` corrects these cases.
"""

from typing import Any

import torch
from pyro.distributions import TorchDistribution
from pyro.distributions.torch_distribution import ExpandedDistribution
from pyro.distributions.util import sum_rightmost
from torch import Tensor
from torch.distributions import (
    ContinuousBernoulli,
    HalfCauchy,
    HalfNormal,
    Independent,
    MultivariateNormal,
    Normal,
    TransformedDistribution,
    Uniform,
    kl_divergence,
    register_kl,
)


def closed_form_kl(q: TorchDistribution, p: TorchDistribution) -> Tensor | None:
    """KL(q || p) in closed form, in nats, of the shape that both batch shapes broadcast to; None if none is known.

    No value of a tensor is read on the host. An element may be infinite where the divergence is, or where numbers
    overflow. A caller who has draws z ~ q of the same batch shape can fall back on them:

        torch.where(closed.isfinite() | ~sampled.isfinite(), closed, sampled),    sampled = log q(z) - log p(z)

    Example:

        >>> import torch
        >>> from pyro import distributions as dist
        >>> closed_form_kl(dist.Beta(torch.full((2, 3), 2.0), 1.0), dist.Uniform(0.0, 1.0))  # log 2 - 1/2
        tensor([[0.1931, 0.1931, 0.1931],
                [0.1931, 0.1931, 0.1931]])
        >>> closed_form_kl(dist.Cauchy(0.0, 1.0), dist.Normal(0.0, 1.0)) is None
        True
    """
    shape = torch.broadcast_shapes(q.batch_shape, p.batch_shape)
    return _same_batch_kl(_expanded(q, shape), _expanded(p, shape))


def _same_batch_kl(q: Any, p: Any) -> Tensor | None:
    """:func:`closed_form_kl` of two distributions of one batch shape."""
    if isinstance(q, Independent) and isinstance(p, Independent):
        shared = min(q.reinterpreted_batch_ndims, p.reinterpreted_batch_ndims)
        elements = _same_batch_kl(_without_dims(q, shared), _without_dims(p, shared))
        return None if elements is None else sum_rightmost(elements, shared)
    if isinstance(q, ContinuousBernoulli) and isinstance(p, Uniform):
        return _continuous_bernoulli_uniform(q, p)
    if isinstance(q, Uniform) and isinstance(p, ContinuousBernoulli):
        return _uniform_continuous_bernoulli(q, p)
    if _folds(q) or _folds(p):
        return None
    try:
        return kl_divergence(q, p)
    except NotImplementedError:
        return None


def _folds(fn: Any) -> bool:
    """Whether a transform is not one to one: torch's formula of two transformed densities is then that of their bases.

    torch has formulas of their own for its half-normal family.
    """
    if not isinstance(fn, TransformedDistribution) or isinstance(fn, HalfNormal | HalfCauchy):
        return False
    return not all(transform.bijective for transform in fn.transforms)


def _expanded(distribution: Any, shape: torch.Size) -> Any:
    """The distribution with that batch shape, if it stays in its family."""
    if distribution.batch_shape == shape or isinstance(distribution, ExpandedDistribution):  # its expand changes it
        return distribution
    expanded = distribution.expand(shape)
    return expanded if isinstance(expanded, type(distribution)) else distribution


def _without_dims(distribution: Independent, count: int) -> Any:
    """The distribution with ``count`` fewer event dimensions, which become batch dimensions."""
    left = distribution.reinterpreted_batch_ndims - count
    return Independent(distribution.base_dist, left, validate_args=False) if left else distribution.base_dist


def _continuous_bernoulli_uniform(q: ContinuousBernoulli, p: Uniform) -> Tensor:
    """log (high - low) - H(q) if [low, high] holds [0, 1], else infinity."""
    inside = (p.low <= 0) & (p.high >= 1)
    return torch.where(inside, (p.high - p.low).log() - q.entropy(), torch.inf)


def _uniform_continuous_bernoulli(q: Uniform, p: ContinuousBernoulli) -> Tensor:
    """- log (high - low) - log p((low + high) / 2) if [0, 1] holds [low, high], else infinity: log p is linear."""
    inside = (q.low >= 0) & (q.high <= 1)
    log_p = p.log_prob(((q.low + q.high) / 2).clamp(0, 1))
    return torch.where(inside, -(q.high - q.low).log() - log_p, torch.inf)


@register_kl(MultivariateNormal, Independent)
def _full_rank_diagonal(q: MultivariateNormal, p: Independent) -> Tensor:
    """KL(N(m, L L') || N(mu, diag(s^2))) = 1/2 sum_d [(L L')_dd / s_d^2 + (m_d - mu_d)^2 / s_d^2 - 1] + log s_d / L_dd.

    torch has the closed form of two full covariances alone.
    """
    if not isinstance(p.base_dist, Normal) or p.reinterpreted_batch_ndims != 1:
        raise NotImplementedError
    loc, scale, scale_tril = p.base_dist.loc, p.base_dist.scale, q.scale_tril
    square = (scale_tril.square().sum(-1) + (q.loc - loc).square()) / scale.square()
    log_ratio = scale.log() - scale_tril.diagonal(dim1=-2, dim2=-1).log()
    return (0.5 * (square - 1) + log_ratio).sum(-1)
