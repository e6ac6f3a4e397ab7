"""Training and test parts: which rows stand in which."""

import torch
from torch import Tensor

from ppvae.data.lazy import LazyImages, MappedImages
from ppvae.errors import DataError

SPLIT_SEED = 0  # the same split in every run, so that scores of two runs are of the same test data
Part = tuple[Tensor | LazyImages, Tensor | None]  # x, and its labels if it has any


def with_test_apart(x: Tensor, y: Tensor | None, rows: int) -> tuple[Part, Part]:
    """A training part, and ``rows`` rows drawn at random for the test part."""
    parts = hold_out(x, y, rows)
    return parts["train"], parts["validation"]


def with_test_among(x: Tensor | LazyImages, rows: int) -> tuple[Part, Part]:
    """All of x as the training part, and ``rows`` of the same rows, drawn at random, as the test part."""
    return (x, None), (x[_shuffled(len(x))[:rows]], None)


def hold_out(x: Tensor | LazyImages, y: Tensor | None, rows: int, shuffled: bool = True) -> dict[str, Part]:
    """A training part, and a validation part of ``rows`` rows if that is above 0: random ones, or the last."""
    if not 0 <= rows < len(x):
        raise DataError(f"expected to hold out between 0 and {len(x) - 1} rows, got {rows}")
    train, held_out = slice(len(x) - rows), slice(len(x) - rows, len(x))
    if shuffled:
        order = _shuffled(len(x))
        train, held_out = order[train], order[held_out]
    parts = {"train": train, "validation": held_out} if rows else {"train": train}
    return {part: (_part(x, index), None if y is None else y[index]) for part, index in parts.items()}


def _part(x: Tensor | LazyImages, index) -> Tensor | LazyImages:
    return x.part(index) if isinstance(x, MappedImages) and isinstance(index, slice) else x[index]


def _shuffled(rows: int) -> Tensor:
    return torch.randperm(rows, generator=torch.Generator().manual_seed(SPLIT_SEED))
