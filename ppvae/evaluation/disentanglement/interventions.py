"""Interventional robustness score (IRS): how far a dimension strays when all factors but one are changed."""

import numpy as np

from ppvae.evaluation.disentanglement.representation import Representation
from ppvae.evaluation.disentanglement.scaling import is_constant


def robustness(codes: np.ndarray, values: np.ndarray, quantile: float = 0.99) -> tuple[np.ndarray, np.ndarray]:
    """Robustness (D, F), and each dimension's greatest deviation (D,), of codes (N, D) and values (N, F).

        max(0, 1 - mean_v Q |z_d - E[z_d | v_k = v]| / max |z_d - E z_d|)

    with Q the quantile over the rows where v_k = v. A constant dimension has robustness 0. The bound below is needed:
    codes of a group may lie further from its mean than any code from the mean of all.
    """
    if not 0 < quantile <= 1:
        raise ValueError(f"expected a quantile above 0, at most 1, got {quantile}")
    greatest = np.where(is_constant(codes), 0, np.abs(codes - codes.mean(0)).max(0))
    stray = np.stack([_stray(codes, value, quantile) for value in values.T], 1)
    found = np.where(greatest > 0, 1 - (stray.T / np.where(greatest > 0, greatest, 1)), 0).T
    return found.clip(min=0), greatest


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
    2019, whose code puts the factors into 20 bins first and gives a perfect code of dSprites' grid 0.986. Here they
    are taken as they are, and it has 1.
    """
    found, greatest = robustness(*representation.sample(num_samples, np.random.default_rng(seed)), quantile)
    return float(np.average(found.max(1), weights=greatest)) if greatest.any() else 0.0
