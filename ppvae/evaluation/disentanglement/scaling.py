"""The scale of codes: which dimensions have none, and how to do away with it."""

import numpy as np

ROUNDING = 4 * float(np.finfo(np.float32).eps)  # a network's codes are float32, whatever they are held in


def is_constant(codes: np.ndarray) -> np.ndarray:
    """Whether each dimension of the codes (N, D) ranges over no more than a few units of rounding, shape (D,)."""
    return np.ptp(codes, 0) <= ROUNDING * np.abs(codes).max(0)


def standardised(codes: np.ndarray, reference: np.ndarray | None = None) -> np.ndarray:
    """(z - mean) / standard deviation of the codes (N, D), or of reference codes (M, D); 0 where that is a constant."""
    reference = codes if reference is None else reference
    varies = ~is_constant(reference)
    return np.where(varies, (codes - reference.mean(0)) / np.where(varies, reference.std(0), 1), 0)
