"""Interventional robustness score (IRS): how far a dimension strays when all factors but one are changed."""

import numpy as np

from ppvae.evaluation.disentanglement.representation import Representation


def robustness(codes: np.ndarray, values: np.ndarray, quantile: float = 0.99) -> tuple[np.ndarray, np.ndarray]:
    """Robustness (D, F), and each dimension's greatest deviation (D,), of codes (N, D) and values (N, F).

        1 - mean_v Q |z_d - E[z_d | v_k = v]| / max |z_d - E z_d|

    with Q the quantile over the rows where v_k = v. A constant dimension has robustness 0.
    """
    greatest = np.abs(codes - codes.mean(0)).max(0)
    stray = np.stack([_stray(codes, value, quantile) for value in values.T], 1)
    return np.where(greatest > 0, 1 - (stray.T / np.where(greatest > 0, greatest, 1)), 0).T, greatest


def _stray(codes: np.ndarray, value: np.ndarray, quantile: float) -> np.ndarray:
    """Mean over the values of one factor of the quantile of the deviations, shape (D,)."""
    groups = [codes[value == v] for v in np.unique(value)]
    return np.mean([np.quantile(np.abs(group - group.mean(0)), quantile, axis=0) for group in groups], 0)


def irs(representation: Representation, *, num_samples: int = 10_000, quantile: float = 0.99, seed: int = 0) -> float:
    """Mean over dimensions of max_k :func:`robustness`, weighted by their greatest deviations.

    From 0 to 1, with a chance level far above 0 (0.37 for 10 dimensions of normal noise); 0 for a constant code.
    Invariant to permutation, sign, and a scale that all dimensions share: dimensions of larger range count for more.

    Args:
        representation: codes of a grid.
        num_samples: rows.
        quantile: of the deviations; 1 is the paper's maximum, 0.99 what published numbers use.
        seed: of the rows.

    Source: Suter et al. 2019, "Robustly Disentangled Causal Mechanisms"; quantile and sample as in Locatello et al.
    2019.
    """
    found, greatest = robustness(*representation.sample(num_samples, np.random.default_rng(seed)), quantile)
    return float(np.average(found.max(1), weights=greatest)) if greatest.any() else 0.0
