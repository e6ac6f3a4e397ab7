"""The columns of a data set: conversion to tensors, and checks of their values."""

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ppvae.data.lazy import LazyImages
from ppvae.engine import columns
from ppvae.engine.conditions import is_name
from ppvae.errors import DataError

ROWS_LOOKED_AT = 64  # of images that are made or read when they are indexed
DEEPEST_AMBIGUOUS = 127  # what seven bits hold: values up to here may be grey values of fewer than eight bits


def as_column(value: Any, name: str) -> Tensor:
    """A tensor as it is, or a numpy array as a tensor; see :func:`ppvae.engine.columns.as_column`.

    Raises:
        DataError: the value is neither, or an array of other things than numbers.

    Example:

        >>> import numpy as np
        >>> as_column(np.zeros(3), "x").dtype, as_column(torch.zeros(3).double(), "x").dtype
        (torch.float32, torch.float64)
    """
    return columns.as_column(value, name, error=DataError).detach()


def as_labels(value: Any, rows: int, num_classes: int | None) -> Tensor:
    """Labels as a long tensor of shape (rows,). Raises DataError unless they are class indices, -1 where unknown.

    Example:

        >>> import numpy as np
        >>> as_labels(np.array([0, 2, -1], dtype=np.int8), rows=3, num_classes=3)
        tensor([ 0,  2, -1])
    """
    y = as_column(value, "y")
    if y.is_floating_point():
        raise DataError(
            f"expected y to be class indices, integers from 0, or -1 where unknown, got {y.dtype}; pass a real-valued "
            "condition by a name of its own, e.g. Dataset(x, temperature=t)"
        )
    if y.shape != (rows,):
        remedy = f"; of one-hot rows take y.argmax({y.dim() - 1})" if y.dim() == 2 and y.shape[0] == rows else ""
        raise DataError(f"expected y of shape ({rows},), one label a row of x, got {tuple(y.shape)}{remedy}")
    y = y.long()
    low, high = map(int, y.aminmax())
    if low < -1 or (num_classes is not None and high >= num_classes):
        row = int(((y < -1) | (y >= (high + 1 if num_classes is None else num_classes))).nonzero()[0])
        top = "the number of classes less 1" if num_classes is None else num_classes - 1
        raise DataError(
            f"expected labels from 0 to {top}, or -1 where unknown, got {low} to {high}, the first outside in row {row}"
        )
    return y


def as_conditions(given: Mapping[str, Any], rows: int) -> dict[str, Tensor]:
    """Named conditions as tensors of ``rows`` rows. Raises DataError for another object, number of rows, or name.

    Example:

        >>> as_conditions({"angle": torch.zeros(3)}, rows=3)
        {'angle': tensor([0., 0., 0.])}
    """
    conditions = {}
    for name, value in given.items():
        if not is_name(name):
            raise DataError(
                f"expected the name of a condition to be an identifier that is not reserved, got {name!r}; rename it ("
                "pass a dict of conditions as Dataset(x, y, **conditions))"
            )
        try:
            condition = as_column(value, f"condition {name!r}")
        except DataError as error:
            raise DataError(
                f"{error}; Dataset takes num_classes, binarization, levels, name and factors as options, and any "
                f"other keyword as a condition of {rows} rows"
            ) from error
        if condition.shape[:1] != (rows,):
            raise DataError(
                f"expected condition {name!r} to have {rows} rows, one a row of x, got shape {tuple(condition.shape)}"
            )
        has_missing(condition, f"condition {name!r}")
        conditions[name] = condition
    return conditions


def has_missing(column: Tensor, name: str) -> bool:
    """Whether a column holds NaN, a missing element. Raises DataError where it holds infinity or nothing but NaN.

    Example:

        >>> has_missing(torch.tensor([[1.0, torch.nan]]), "x"), has_missing(torch.tensor([[1.0, 2.0]]), "x")
        (True, False)
    """
    if not column.is_floating_point() or not column.numel() or torch.isfinite(torch.stack(column.aminmax())).all():
        return False
    infinite = column.isinf()
    if infinite.any():
        raise DataError(
            f"expected finite values (NaN where an element is missing) in {name}, got infinity first in row "
            f"{first_row(infinite)}; clean the data"
        )
    if column.isnan().all():
        raise DataError(f"expected {name} to have at least one element that is not NaN, got none")
    return True


def first_row(bad: Tensor) -> int:
    """The first row of which an element is true.

    Example:

        >>> first_row(torch.tensor([[False, False], [False, True]]))
        1
    """
    return int(bad.reshape(len(bad), -1).any(1).nonzero()[0])


def require_within(x: Tensor, low: float, high: float, purpose: str, remedy: str, every: int = 1) -> None:
    """Raise DataError, with the first value and its row, unless low <= x <= high wherever x is not NaN.

    The message names the row of the data, of which x holds each ``every``-th.

    Example:

        >>> require_within(torch.tensor([[0.5]]), 0, 1, "for pixels", "divide by 255")
        >>> require_within(torch.tensor([[0.5], [2.0]]), 0, 1, "for pixels", "divide by 255")
        Traceback (most recent call last):
        ppvae.errors.DataError: expected values in [0, 1] for pixels, got 2 in row 1; divide by 255
    """
    least, most = x.aminmax() if x.numel() else (low, high)
    if least >= low and most <= high:
        return
    bad = (x < low) | (x > high)  # also reached where x holds NaN
    if bad.any():
        raise DataError(
            f"expected values in [{low:g}, {high:g}] {purpose}, got {x[bad][0].item():.9g} in row "
            f"{every * first_row(bad)}; {remedy}"
        )


def require_binary(x: Tensor, levels: int | None) -> None:
    """Raise DataError, with the first other value and its row, unless x is black or white wherever it is not NaN.

    Example:

        >>> require_binary(torch.tensor([[0, 255]]), levels=256)
    """
    white = 1 if levels is None else levels - 1
    bad = (x != 0) & (x != white) & ~x.isnan()
    if bad.any():
        raise DataError(
            f'expected only 0 and {white} for binarization="fixed", got {x[bad][0].item():.9g} in row '
            f'{first_row(bad)}; use Dataset(...).binarized(seed), or binarization="dynamic"'
        )


def grey_levels(x: Tensor | LazyImages, levels: int | None) -> int | None:
    """The number of grey levels of integer data, as stated or as their type says; None for floating data.

    Raises:
        DataError: the levels are not stated and the values do not tell, or values lie outside those stated.

    Example:

        >>> grey_levels(torch.tensor([[0, 255]]).byte(), None), grey_levels(torch.tensor([[True]]), None)
        (256, 2)
    """
    if x.is_floating_point():
        if levels is not None:
            raise DataError(f"expected levels only for integer x, got levels={levels!r} for {x.dtype}; divide x itself")
        return None
    if isinstance(x, LazyImages) and x.levels is not None and levels in (None, x.levels):
        return x.levels
    every = -(-len(x) // ROWS_LOOKED_AT) if isinstance(x, LazyImages) else 1
    seen = x if isinstance(x, Tensor) else x[::every]
    if levels is None:
        return 2 if x.dtype == torch.bool else _levels_of(seen)
    levels = whole_number(levels, "levels", at_least=2)
    if x.dtype == torch.bool and levels != 2:
        raise DataError(f"expected levels 2 for x of torch.bool, got {levels}")
    if x.dtype != torch.bool:
        require_within(seen, 0, levels - 1, f"for levels={levels}", "state another number of levels, or clean x", every)
    return levels


def _levels_of(x: Tensor) -> int:
    high = int(x.amax()) if x.numel() else 0
    if x.dtype != torch.uint8:
        raise DataError(
            f"expected floating data, bool, or uint8 grey values, got {x.dtype}; state the number of grey levels, "
            "e.g. levels=65536 if white is 65535, or convert x with x.float()"
        )
    if high <= DEEPEST_AMBIGUOUS:
        raise DataError(
            f"expected uint8 grey values up to 255, got {high} at most, so the value of white is unclear; state the "
            f"number of grey levels: levels=256 if white is 255, levels={max(high, 1) + 1} if white is {max(high, 1)}"
        )
    return 256


def whole_number(value: Any, name: str, at_least: int) -> int:
    """A whole number, numpy's too, as an int. Raises DataError for anything else, or a number that is too small.

    Example:

        >>> import numpy as np
        >>> whole_number(np.int64(3), "validation", at_least=0)
        3
    """
    try:
        number = operator.index(value)
    except TypeError as error:
        raise DataError(f"expected {name} to be a whole number, got {value!r}") from error
    if number < at_least or isinstance(value, bool):
        raise DataError(f"expected {name} to be a whole number of at least {at_least}, got {value!r}")
    return number
