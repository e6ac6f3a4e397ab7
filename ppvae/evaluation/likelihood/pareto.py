"""Pareto k-hat of importance weights, by ArviZ (0.x and 1.x), and the limit that it is compared with."""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

MIN_WEIGHTS = 25  # with fewer the tail holds less than five weights
HIGHEST_LIMIT = 0.7


def khat_limit(num_particles: int) -> float:
    """The k-hat up to which an importance sampling estimate from K weights is reliable, min(1 - 1 / log10 K, 0.7).

    Up to 0.7 the error of an estimate decreases fast enough with K to be useful. For K below about 2,150 the k-hat of
    that many weights is itself too uncertain for this limit, and a smaller one applies, such as 0.5 for K = 100.

    Args:
        num_particles: K, at least 1. The limit is minus infinity for K = 1.

    Raises ValueError for another K.

    Source: Vehtari et al. 2024, "Pareto Smoothed Importance Sampling". ArviZ uses the same limit.

    Example:

        >>> from ppvae.evaluation.likelihood.pareto import khat_limit
        >>> [round(khat_limit(k), 3) for k in (100, 1000, 5000)]
        [0.5, 0.667, 0.7]
    """
    if num_particles < 1:
        raise ValueError(f"expected at least 1 particle, got {num_particles}")
    return -math.inf if num_particles == 1 else min(1 - 1 / math.log10(num_particles), HIGHEST_LIMIT)


def pareto_khat(log_weight: np.ndarray) -> np.ndarray:
    """Shape parameter k of the generalised Pareto distribution fitted to the largest weights of each row, shape (...).

    Above :func:`khat_limit` neither the mean of the weights nor its standard error is reliable. The value is minus
    infinity for equal weights, which have no tail. It is NaN for K below 25, where the tail would have less than five
    weights, and for rows that hold a NaN or an infinite weight or only zero weights.

    Args:
        log_weight: log importance weights, shape (..., K).

    Source: Vehtari et al. 2024, "Pareto Smoothed Importance Sampling".

    Example:

        >>> import numpy as np
        >>> from ppvae.evaluation import pareto_khat
        >>> uniform = np.random.default_rng(0).uniform(size=(1, 50_000))
        >>> pareto_khat(-0.5 * np.log(uniform)).round(1)  # weights u^(-1/2) are Pareto with k = 1/2
        array([0.5])
    """
    if log_weight.shape[-1] < MIN_WEIGHTS:
        return np.full(log_weight.shape[:-1], np.nan)
    flat = log_weight.reshape(-1, log_weight.shape[-1])
    finite = ~np.isnan(flat).any(-1) & np.isfinite(flat.max(-1))
    flat = np.maximum(flat, -1e300)  # the fit takes finite numbers; a weight of zero is not in the tail
    khat = np.where(finite, -np.inf, np.nan)
    unequal = np.zeros_like(finite)
    unequal[finite] = np.ptp(flat[finite], axis=-1) > 1e-10
    if unequal.any():
        khat[unequal] = _psis(flat[unequal])
    return khat.reshape(log_weight.shape[:-1])


def _psis(log_weight: np.ndarray) -> np.ndarray:
    """k-hat of rows of finite log weights."""
    return np.atleast_1d(_smoother()(log_weight)[1])


@cache
def _smoother() -> Callable[[np.ndarray], tuple[Any, Any]]:
    """ArviZ's Pareto smoothing of log weights, of whichever ArviZ is installed."""
    try:
        from arviz_stats.base import array_stats
    except ImportError:
        from arviz import psislw

        return lambda log_weight: psislw(log_weight.copy())  # ArviZ 0.x changes its argument
    return lambda log_weight: array_stats.psislw(-log_weight, axis=-1)  # ArviZ 1.x expects negative log weights
