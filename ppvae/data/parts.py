"""Training, validation and test parts: which rows are in which."""

import torch
from torch import Tensor

from ppvae.data.columns import whole_number
from ppvae.data.lazy import LazyImages, MappedImages
from ppvae.errors import DataError

SPLIT_SEED = 0  # one split for all runs, so that their scores are of the same test data
Part = tuple[Tensor | LazyImages, Tensor | None]  # x, and its labels if it has any


def with_test_apart(x: Tensor, y: Tensor | None, rows: int) -> tuple[Part, Part]:
    """A training part, and a test part of ``rows`` other rows, drawn at random.

    Example:

        >>> (x, _), (test, _) = with_test_apart(torch.arange(5).unsqueeze(1), None, 2)
        >>> len(x), len(test)
        (3, 2)
    """
    parts = hold_out(x, y, rows)
    return parts["train"], parts["validation"]


def with_test_among(x: Tensor | LazyImages, rows: int) -> tuple[Part, Part]:
    """All of x as the training part, and ``rows`` of its rows, drawn at random, as the test part.

    Example:

        >>> (x, _), (test, _) = with_test_among(torch.arange(5).unsqueeze(1), 2)
        >>> len(x), len(test)
        (5, 2)
    """
    return (x, None), (x[_shuffled(len(x))[:rows]], None)


def hold_out(x: Tensor | LazyImages, y: Tensor | None, rows: int, shuffled: bool = True) -> dict[str, Part]:
    """A training part, and a validation part of ``rows`` random or last rows, if that is above 0.

    Raises:
        DataError: ``rows`` is not a whole number below the number of rows.

    Example:

        >>> parts = hold_out(torch.arange(5).unsqueeze(1), None, 2, shuffled=False)
        >>> parts["validation"][0].flatten()
        tensor([3, 4])
    """
    if whole_number(rows, "the rows to hold out", at_least=0) >= len(x):
        raise DataError(f"expected to hold out at most {len(x) - 1} rows, got {rows}")
    slices = {"train": slice(len(x) - rows)}
    if rows:
        slices["validation"] = slice(len(x) - rows, len(x))
    order = _shuffled(len(x)) if shuffled else None
    return {part: _part(x, y, every if order is None else order[every]) for part, every in slices.items()}


def _part(x: Tensor | LazyImages, y: Tensor | None, index: slice | Tensor) -> Part:
    labels = None if y is None else y[index]
    return x.part(index) if isinstance(x, MappedImages) and isinstance(index, slice) else x[index], labels


def _shuffled(rows: int) -> Tensor:
    return torch.randperm(rows, generator=torch.Generator().manual_seed(SPLIT_SEED))
