"""A data set in memory, on the training device, read by index."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ppvae.data.columns import (
    as_column,
    as_conditions,
    as_labels,
    grey_levels,
    has_missing,
    require_binary,
    require_within,
    whole_number,
)
from ppvae.data.factors import Factors
from ppvae.data.lazy import LazyImages
from ppvae.engine.batch import Array, Batch, rows_to_check
from ppvae.errors import DataError

Binarization = Literal["dynamic", "fixed", "none"]
BINARIZATIONS: tuple[Binarization, ...] = ("dynamic", "fixed", "none")
Index = slice | Tensor | np.ndarray | Sequence[int]
ALL = slice(None)


class Dataset:
    """Data x with, where there are any, labels y and named conditions. A data set does not change.

    Args:
        x: shape (N, *event_shape), a tensor, a numpy array or :class:`~ppvae.data.LazyImages`. Floating data are given
            out as they are; NaN marks a missing element, infinity is refused. Integers and bool are grey values
            0 .. levels - 1 and are given out as x / (levels - 1), floats in [0, 1].
        y: labels, integers of shape (N,), -1 where unknown; None if there are none.
        num_classes: number of classes of y.
        binarization: "dynamic" draws each pixel anew, with probability its grey value, whenever a row is
            read; "fixed" did so once (:meth:`binarized`); "none" gives grey values.
        levels: number of grey levels of integer x. By default 2 for bool and 256 for uint8. Other integers require it,
            and so do uint8 values that are at most 127, which may have been made with fewer than eight bits.
        name: what tables and reports call the data.
        factors: of data that hold one row for each combination, in their order; by default those of ``x``, such as
            :class:`~ppvae.data.Sprites` has.
        given: named conditions, tensors or numpy arrays of N rows, given out as they are.

    The arguments are attributes of the same names, ``given`` as a dict; ``has_missing`` tells whether x holds NaN.
    Floating numpy arrays become torch's default type (float32 unless it was set); tensors keep theirs. Labels and
    conditions are moved to the device of x.

    Raises:
        DataError: a column is not of the form above.

    Example:

        >>> x = torch.tensor([[0, 255], [255, 0], [255, 255]], dtype=torch.uint8)
        >>> data = Dataset(x, np.array([0, 1, -1]), num_classes=2, angle=torch.zeros(3, 1))
        >>> data
        Dataset('data', 3 rows of shape (2,), y, angle)
        >>> batch = data.batch(slice(0, 2))
        >>> batch.x.tolist(), batch.label.tolist(), batch.given["angle"].shape
        ([[0.0, 1.0], [1.0, 0.0]], [0, 1], torch.Size([2, 1]))
    """

    x: Tensor | LazyImages
    y: Tensor | None
    given: dict[str, Tensor]
    num_classes: int | None
    binarization: Binarization
    levels: int | None
    name: str
    factors: Factors | None
    has_missing: bool
    _known: Tensor  # which labels are known, on the CPU: looked up there, a step never waits for the device
    _every: bool | None  # whether all labels are known, or none (False); None if some are

    def __init__(
        self,
        x: Array | LazyImages,
        y: Array | None = None,
        *,
        num_classes: int | None = None,
        binarization: Binarization = "none",
        levels: int | None = None,
        name: str = "data",
        factors: Factors | None = None,
        **given: Array,
    ):
        _check_options(binarization, name, factors)
        x = x if isinstance(x, LazyImages) else as_column(x, "x")
        if x.dim() < 2 or len(x) == 0:
            remedy = "; give rows of one number as x.reshape(-1, 1)" if x.dim() == 1 and len(x) else ""
            raise DataError(f"expected x of shape (N, *event_shape) with N >= 1, got {tuple(x.shape)}{remedy}")
        classes = None if num_classes is None else whole_number(num_classes, "num_classes", at_least=1)
        labels = None if y is None else as_labels(y, len(x), classes)
        conditions = {label: value.to(x.device) for label, value in as_conditions(given, len(x)).items()}
        vars(self).update(
            x=x,
            y=None if labels is None else labels.to(x.device),
            given=conditions,
            num_classes=classes,
            binarization=binarization,
            levels=grey_levels(x, levels),
            name=name,
            factors=x.factors if factors is None and isinstance(x, LazyImages) else factors,
            **_known(labels, len(x)),
            has_missing=isinstance(x, Tensor) and has_missing(x, "x"),
        )
        self._check_values()

    def _check_values(self) -> None:
        if self.factors is not None and len(self.factors) != len(self.x):
            raise DataError(
                f"expected a row for each of the {len(self.factors)} combinations of factors, got {len(self.x)} rows; "
                "give a part of a grid no factors"
            )
        if isinstance(self.x, LazyImages) or self.binarization == "none":
            return
        if self.levels is None:
            require_within(self.x, 0, 1, "to binarize", "rescale or clean x")
        if self.binarization == "fixed":
            require_binary(self.x, self.levels)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a Dataset does not change: make another with the {name} wanted")

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        columns = ", ".join([*(["y"] if self.y is not None else []), *self.given])
        shape = f"{len(self)} rows of shape {self.event_shape}"
        return f"Dataset({self.name!r}, {shape}{', ' + columns if columns else ''})"

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of a row of x."""
        return tuple(self.x.shape[1:])

    def batch(self, index: Index = ALL, all_known: bool | None = None) -> Batch:
        """The rows at ``index`` with their labels and conditions.

        Args:
            index: a slice, an index of shape (B,) or a mask.
            all_known: whether every label at ``index`` is known. If None it is looked up on the CPU; of data that are
                labelled in part, an index on another device is copied for it.
        """
        x = self.rows(index)
        if x.dim() != self.x.dim():
            raise IndexError(f"expected a slice, an index of shape (B,) or a mask, got {index!r}")
        known = self._all_known(index) if all_known is None else all_known and self.y is not None
        return Batch(x, self.labels(index), {name: value[index] for name, value in self.given.items()}, known)

    def _all_known(self, index: Index) -> bool:
        if self._every is not None:
            return self._every
        return bool(self._known[index.cpu() if isinstance(index, Tensor) else index].all())

    def rows(self, index: Index) -> Tensor:
        """x at ``index`` as floats, binarized if dynamic. A missing element stays NaN."""
        x = self.grey(index)
        return self._where_observed(x, (torch.rand_like(x) < x).to(x.dtype)) if self.binarization == "dynamic" else x

    def grey(self, index: Index) -> Tensor:
        """x at ``index`` as floats, before dynamic binarization."""
        x = self.x[index]
        return x if self.levels is None else x / (self.levels - 1)

    def most_probable(self, index: Index) -> Tensor:
        """:meth:`rows` without randomness: for dynamic binarization, whether each grey value is above a half."""
        x = self.grey(index)
        return self._where_observed(x, (x > 0.5).to(x.dtype)) if self.binarization == "dynamic" else x

    def _where_observed(self, x: Tensor, binary: Tensor) -> Tensor:
        return torch.where(x.isnan(), x, binary) if self.has_missing else binary

    def labels(self, index: Index) -> Tensor | None:
        """The labels at ``index``, long; None if there are none."""
        return None if self.y is None else self.y[index]

    def rows_by_label(self) -> tuple[Tensor, Tensor]:
        """Indices, on the CPU, of the rows with a known label and of those without."""
        return self._known.nonzero().squeeze(1), (~self._known).nonzero().squeeze(1)

    def rows_to_check(self) -> Tensor:
        """Indices, on the device of the data, of a few rows of each kind: :func:`ppvae.engine.batch.rows_to_check`."""
        missing = [self.x] if self.has_missing and isinstance(self.x, Tensor) else []
        labels = self._known.long() - 1 if self.y is None else self.y
        return rows_to_check(labels, [*missing, *self.given.values()]).to(self.x.device)

    def take(self, index: Index) -> "Dataset":
        """The rows at ``index`` (a slice, an index or a mask), as a data set in memory.

        A slice of data that are in memory shares theirs. Factors are left behind: a part is no grid of them.
        """
        given = {name: value[index] for name, value in self.given.items()}
        x, y = self.x[index], self.labels(index)
        if x.dim() != self.x.dim() or len(x) == 0:
            raise DataError(f"expected a slice, an index of shape (B,) or a mask of at least one row, got {index!r}")
        return self._with(x=x, y=y, given=given, factors=None, **_known(y, len(x)))

    def to(self, device: torch.device | str) -> "Dataset":
        """The same data on another device."""
        given = {name: value.to(device) for name, value in self.given.items()}
        return self._with(x=self.x.to(device), y=None if self.y is None else self.y.to(device), given=given)

    def with_labels(self, y: Array | None) -> "Dataset":
        """The same data with other labels, or without any."""
        labels = None if y is None else as_labels(y, len(self), self.num_classes)
        moved = None if labels is None else labels.to(self.x.device)
        return self._with(y=moved, **_known(labels, len(self)))

    def unlabelled(self) -> "Dataset":
        """The same data without labels."""
        return self.with_labels(None)

    def binarized(self, seed: int) -> "Dataset":
        """Each pixel drawn once, by ``seed``, with probability its grey value: fixed binary data."""
        if isinstance(self.x, LazyImages):
            raise DataError(
                f"expected data in memory to binarize once and for all, got {type(self.x).__name__}, made or read when "
                'it is indexed; use binarization "dynamic" or "none", or take rows of it first'
            )
        if self.levels is None:
            require_within(self.x, 0, 1, "to binarize", "rescale or clean x")
        white, generator = 1 if self.levels is None else self.levels - 1, torch.Generator().manual_seed(seed)
        draws = [  # row by row, as the floats of the whole would take four times the memory of uint8
            (torch.bernoulli((row / white).nan_to_num(0), generator=generator) * white).to(row.dtype)
            for row in self.x.cpu().split(1)
        ]
        drawn = torch.cat(draws).to(self.x.device)
        return self._with(x=self._where_observed(self.x, drawn), binarization="fixed")

    def _with(self, **changes: Any) -> "Dataset":
        """A copy with changes that need no check."""
        copy = object.__new__(type(self))
        vars(copy).update({**vars(self), **changes})
        return copy


@dataclass(frozen=True, eq=False)
class Splits:
    """Training and test part of one data set, and a validation part if one is held out.

    Example:

        >>> splits = Splits(train=Dataset(torch.zeros(8, 2)), test=Dataset(torch.zeros(2, 2)))
        >>> len(splits.train), len(splits.test), splits.validation is None
        (8, 2, True)
    """

    train: Dataset
    test: Dataset
    validation: Dataset | None = None


def _check_options(binarization: Any, name: Any, factors: Any) -> None:
    if not isinstance(binarization, str) or binarization not in BINARIZATIONS:
        raise DataError(f"expected binarization to be one of {BINARIZATIONS}, got {binarization!r}")
    if not isinstance(name, str):
        raise DataError(f"expected name to be a string, got {type(name).__name__}; call a condition something else")
    if factors is not None and not isinstance(factors, Factors):
        raise DataError(f"expected factors to be ppvae.data.Factors, got {type(factors).__name__}")


def _known(y: Tensor | None, rows: int) -> dict[str, Any]:
    known = torch.zeros(rows, dtype=torch.bool) if y is None else (y >= 0).cpu()
    some, every = bool(known.any()), bool(known.all())
    return {"_known": known, "_every": every if every or not some else None}
