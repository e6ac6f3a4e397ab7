"""Gaussians over vectors, from the output of a network."""

import torch
from pyro import distributions as dist
from torch import Tensor


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
