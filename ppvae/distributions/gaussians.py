"""Gaussians over vectors, from the output of a network."""

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal, register_kl


def standard_normal(like: Tensor, dim: int) -> dist.TorchDistribution:
    """N(0, I) over vectors of length ``dim``, with the type and device of ``like``."""
    zero = torch.zeros((), dtype=like.dtype, device=like.device)
    return dist.Normal(zero, zero + 1).expand([dim]).to_event(1)


def diagonal_normal(features: Tensor) -> dist.TorchDistribution:
    """Diagonal Gaussian over the last dimension, from its means and the logs of its scales."""
    if features.shape[-1] % 2:
        raise ValueError(f"expected an even number of features, means then log scales, got {features.shape[-1]}")
    loc, log_scale = features.chunk(2, -1)
    return dist.Normal(loc, log_scale.exp()).to_event(1)


@register_kl(MultivariateNormal, Independent)
def _kl_full_rank_from_diagonal(q: MultivariateNormal, p: Independent) -> Tensor:
    """KL(N(m, L L') || N(mu, diag(s^2))) = 1/2 sum_d [(L L')_dd / s_d^2 + (m_d - mu_d)^2 / s_d^2 - 1] + log s_d / L_dd.

    PyTorch has the closed form of two full covariances alone.
    """
    if not isinstance(p.base_dist, Normal) or p.reinterpreted_batch_ndims != 1:
        raise NotImplementedError
    loc, scale, scale_tril = p.base_dist.loc, p.base_dist.scale, q.scale_tril
    square = (scale_tril.square().sum(-1) + (q.loc - loc).square()) / scale.square()
    log_ratio = scale.log() - scale_tril.diagonal(dim1=-2, dim2=-1).log()
    return (0.5 * (square - 1) + log_ratio).sum(-1)
