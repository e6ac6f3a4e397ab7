"""Pareto k-hat of importance weights, through ArviZ (0.x and 1.x)."""

import numpy as np


def pareto_khat(log_weight: np.ndarray) -> np.ndarray:
    """Shape of the generalised Pareto distribution fitted to the largest weights of each row.

    Args:
        log_weight: log importance weights, shape (..., K).

    Returns an array of shape (...). Below 0.7 the estimate of a mean can be relied upon; above it, its
    error bars cannot. NaN where K is below 25, a tail of under five weights, and where a weight
    is NaN or infinite, or all are zero.

    Source: Vehtari et al. 2024, "Pareto Smoothed Importance Sampling".
    """
    if log_weight.shape[-1] < 25:
        return np.full(log_weight.shape[:-1], np.nan)
    flat = log_weight.reshape(-1, log_weight.shape[-1])
    finite = ~np.isnan(flat).any(-1) & np.isfinite(flat.max(-1))
    flat = np.maximum(flat, -1e300)  # a weight of zero is no part of the tail
    khat = np.where(finite, -np.inf, np.nan)
    unequal = np.zeros_like(finite)
    unequal[finite] = np.ptp(flat[finite], axis=-1) > 1e-10  # equal weights have no tail to fit, nothing to fear
    if unequal.any():
        khat[unequal] = _psis(flat[unequal])
    return khat.reshape(log_weight.shape[:-1])


def _psis(log_weight: np.ndarray) -> np.ndarray:
    try:
        from arviz_stats.base import array_stats  # ArviZ 1.x takes minus the log weights
    except ImportError:
        from arviz import psislw  # ArviZ 0.x takes the log weights, and changes what it is given

        return np.atleast_1d(psislw(log_weight.copy())[1])
    return np.atleast_1d(array_stats.psislw(-log_weight, axis=-1)[1])
