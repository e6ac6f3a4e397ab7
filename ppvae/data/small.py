"""Small data sets: embedded, or in one file."""

from pathlib import Path

import numpy as np
import torch

from ppvae.data.files import damaged
from ppvae.data.parts import Part, with_test_apart
from ppvae.errors import DataError

_FREYFACES = (1965, 28, 20)


def digits(root: Path) -> tuple[Part, Part]:
    """scikit-learn's digits; the root is not read."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = torch.from_numpy(np.round(digits.images * (255 / 16)).astype(np.uint8))
    return with_test_apart(grey, torch.from_numpy(digits.target.astype(np.int64)), 540)


def freyfaces(root: Path) -> tuple[Part, Part]:
    """Frey faces, from ``freyfaces.npz``."""
    file = root / "freyfaces.npz"
    if not file.exists():
        raise DataError(
            f"Frey faces are not in {root}. Put them there as freyfaces.npz, with an array `images` of type uint8 and "
            f"shape {_FREYFACES}, or set PPVAE_DATA to a folder that has it"
        )
    try:
        with np.load(file, allow_pickle=False) as arrays:
            images = arrays["images"]
    except Exception as error:  # of zip, zlib, numpy: each has its own word for a damaged file
        raise damaged(file, error) from error
    if images.shape != _FREYFACES or images.dtype != np.uint8:
        raise DataError(f"expected `images` in {file} as uint8 {_FREYFACES}, got {images.dtype} {images.shape}")
    return with_test_apart(torch.from_numpy(images), None, 200)
