"""Interventional robustness score (IRS): how far a dimension deviates when all factors but one change."""

import numpy as np

from ppvae.evaluation.disentanglement.representation import Representation
from ppvae.evaluation.disentanglement.scaling import is_constant


def robustness(codes: np.ndarray, values: np.ndarray, quantile: float = 0.99) -> tuple[np.ndarray, np.ndarray]:
    """Robustness of each dimension to interventions on all factors but one, (D, F), and its largest deviation, (D,).

        R_dk = max(0, 1 - mean_v Q |z_d - E[z_d | v_k = v]| / max |z_d - E z_d|)

    Q is the quantile over the rows with v_k = v. The deviations within a group can exceed the largest deviation from
    the overall mean; the score is then 0. A constant dimension has robustness 0.

    Args:
        codes: z, shape (N, D).
        values: factor values v, shape (N, F).
        quantile: above 0, at most 1 (the maximum).

    Raises ValueError for another quantile.

    Example:

        >>> import numpy as np
        >>> from ppvae.evaluation.disentanglement.interventions import robustness
        >>> values = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
        >>> scores, deviation = robustness(values[:, :1].astype(float), values)
        >>> scores.tolist(), deviation.tolist()
        ([[1.0, 0.0]], [0.5])
    """
    if not 0 < quantile <= 1:
        raise ValueError(f"expected a quantile above 0, at most 1, got {quantile}")
    largest = np.where(is_constant(codes), 0, np.abs(codes - codes.mean(0)).max(0))
    deviations = np.stack([_deviation(codes, value, quantile) for value in values.T], 1)
    scores = np.where(largest > 0, 1 - (deviations.T / np.where(largest > 0, largest, 1)), 0).T
    return scores.clip(min=0), largest


def _deviation(codes: np.ndarray, value: np.ndarray, quantile: float) -> np.ndarray:
    """The quantile of |z_d - E[z_d | v_k]|, averaged over the values of one factor, shape (D,)."""
    groups = [codes[value == v] for v in np.unique(value)]
    return np.mean([np.quantile(np.abs(group - group.mean(0)), quantile, axis=0) for group in groups], 0)


def irs(representation: Representation, *, num_samples: int = 10_000, quantile: float = 0.99, seed: int = 0) -> float:
    """Mean over dimensions of max_k R_dk (:func:`robustness`), weighted by their largest deviations.

    From 0 to 1; 0 for a constant code. The chance level is high: 0.37 for 10 dimensions of normal noise. Invariant to
    permutation, sign, and a scale common to all dimensions; dimensions of larger range have larger weight.

    Args:
        representation: codes of a grid.
        num_samples: rows, drawn with replacement.
        quantile: of the deviations; 1 in the paper, 0.99 in published numbers.
        seed: of the rows.

    Raises ValueError for a quantile outside (0, 1] and for ``num_samples`` below 1.

    Source: Suter et al. 2019, "Robustly Disentangled Causal Mechanisms"; quantile and sample size from Locatello et
    al. 2019. Their code first puts the factors into 20 bins and gives a perfect code of dSprites' grid 0.986; here the
    factors are used as they are, and a perfect code has 1.

    Example:

        >>> import torch
        >>> from ppvae.data import Factors
        >>> from ppvae.evaluation.disentanglement import Representation, irs
        >>> grid = Factors(("shape", "x"), (3, 4))
        >>> round(irs(Representation(grid, grid.values(torch.arange(12)).float()), num_samples=500), 3)
        1.0
    """
    scores, largest = robustness(*representation.sample(num_samples, np.random.default_rng(seed)), quantile)
    return float(np.average(scores.max(1), weights=largest)) if largest.any() else 0.0
