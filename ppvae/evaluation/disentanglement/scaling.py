"""Standardisation of codes, with dimensions that are constant up to rounding set to 0."""

import numpy as np

ROUNDING = 4 * float(np.finfo(np.float32).eps)  # networks compute codes in float32, whatever type stores them


def is_constant(codes: np.ndarray) -> np.ndarray:
    """Whether the range of each dimension of codes (N, D) is at most a few units of rounding, bool of shape (D,).

    Example:

        >>> import numpy as np
        >>> from ppvae.evaluation.disentanglement.scaling import is_constant
        >>> is_constant(np.array([[0.3, 1.0], [0.3, 2.0]])).tolist()
        [True, False]
    """
    return np.ptp(codes, 0) <= ROUNDING * np.abs(codes).max(0)


def standardised(codes: np.ndarray, reference: np.ndarray | None = None) -> np.ndarray:
    """(z - mean) / standard deviation, shape (N, D); 0 in dimensions that are constant.

    Args:
        codes: z, shape (N, D).
        reference: codes (M, D) that give the mean and the standard deviation; ``codes`` if None.

    Example:

        >>> import numpy as np
        >>> from ppvae.evaluation.disentanglement.scaling import standardised
        >>> standardised(np.array([[0.3, 1.0], [0.3, 3.0]])).tolist()
        [[0.0, -1.0], [0.0, 1.0]]
    """
    reference = codes if reference is None else reference
    varies = ~is_constant(reference)
    return np.where(varies, (codes - reference.mean(0)) / np.where(varies, reference.std(0), 1), 0)
