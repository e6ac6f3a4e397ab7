"""Small data sets: embedded, or in one file."""

from pathlib import Path

import numpy as np
import torch

from ppvae.data.files import is_file, read_member
from ppvae.data.parts import Part, with_test_apart
from ppvae.errors import DataError

_FREYFACES = (1965, 28, 20)


def digits(root: Path) -> tuple[Part, Part]:
    """scikit-learn's digits, grey values 0..16 scaled to 0..255; the root is not read.

    Example:

        >>> (x, y), (test, _) = digits(Path("unused"))
        >>> len(x), len(test), x.shape[1:]
        (1257, 540, torch.Size([8, 8]))
    """
    from sklearn.datasets import load_digits  # imported late: it takes a second

    digits = load_digits()
    grey = torch.from_numpy(np.round(digits.images * (255 / 16)).astype(np.uint8))
    return with_test_apart(grey, torch.from_numpy(digits.target.astype(np.int64)), 540)


def freyfaces(root: Path) -> tuple[Part, Part]:
    """Frey faces, from ``freyfaces.npz``. Raises DataError if it is absent, damaged or of another form.

    Example:

        >>> freyfaces(Path("absent"))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ppvae.errors.DataError: Frey faces are not in absent...
    """
    file = root / "freyfaces.npz"
    if not is_file(file):
        raise DataError(
            f"Frey faces are not in {root}. Put them there as freyfaces.npz, with an array `images` of type uint8 and "
            f"shape {_FREYFACES}, or set PPVAE_DATA to a folder that has it"
        )
    images = np.ascontiguousarray(read_member(file, "images", _FREYFACES))
    return with_test_apart(torch.from_numpy(images), None, 200)
