"""Gaussians over vectors."""

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
