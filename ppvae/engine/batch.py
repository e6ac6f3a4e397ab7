"""What a pair is called with: data, labels, conditions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from ppvae.engine.columns import as_column
from ppvae.errors import ContractError

Array = Tensor | np.ndarray
CHECKED_ROWS = 4  # of each kind, labelled and unlabelled


@dataclass(frozen=True, eq=False)
class Batch:
    """B data with their labels and conditions. A pair is called as ``model(x, label, **given)``.

    Attributes:
        x: data, shape (B, *event_shape). NaN marks a missing element, where the likelihood allows it.
        y: labels, long, shape (B,), -1 where unknown; None if there are none.
        given: named conditions, tensors of B rows.
        all_known: whether every label is known. It is decided when the batch is made, so that a training step never
            asks the device.

    Example:

        >>> import torch
        >>> batch = as_batch(torch.zeros(3, 2), torch.tensor([0, -1, 1]))
        >>> len(batch), batch.label, batch.known.tolist()
        (3, None, [True, False, True])
    """

    x: Tensor
    y: Tensor | None = None
    given: Mapping[str, Tensor] = field(default_factory=dict)
    all_known: bool = False

    def __len__(self) -> int:
        return len(self.x)

    @property
    def label(self) -> Tensor | None:
        """The labels that the pair is called with: all of them where all are known, else None."""
        return self.y if self.all_known else None

    @property
    def known(self) -> Tensor | None:
        """Which labels are known, bool, shape (B,); None if there are no labels."""
        return None if self.y is None else self.y >= 0

    def rows(self, index: Any) -> "Batch":
        """The rows at ``index``: a slice, an index tensor or a mask. Reads the labels on the host."""
        part = self.map(lambda column: column[index])
        return part if self.all_known else replace(part, all_known=_all_known(part.y))

    def kinds(self) -> "list[Batch]":
        """The unlabelled and the labelled rows, where there are any. Reads the labels on the host."""
        known = self.known
        if known is None or self.all_known:
            return [self]
        return [self.rows(mask) for mask in (~known, known) if mask.any()]

    def to(self, device: torch.device) -> "Batch":
        """The same rows on another device."""
        return self.map(lambda column: column.to(device))

    def map(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        """The batch with ``function`` applied to each of its columns."""
        given = {name: function(column) for name, column in self.given.items()}
        return Batch(function(self.x), None if self.y is None else function(self.y), given, self.all_known)

    def unlabelled(self) -> "Batch":
        """The same data and conditions without labels."""
        return Batch(self.x, None, self.given)

    def with_x(self, x: Tensor) -> "Batch":
        """The same labels and conditions with other data."""
        return replace(self, x=x)


@runtime_checkable
class HasBatch(Protocol):
    """Data with columns, such as ``ppvae.data.Dataset``.

    Example:

        >>> class Zeros:
        ...     def batch(self, index=slice(None)):
        ...         return as_batch(torch.zeros(5, 2)[index])
        >>> isinstance(Zeros(), HasBatch), len(as_batch(Zeros()))
        (True, 5)
    """

    def batch(self, index: Any = ...) -> Batch:
        """The rows at ``index`` as a batch."""


def as_batch(
    data: "Batch | HasBatch | Array",
    y: Array | None = None,
    given: Mapping[str, Array] | None = None,
    dtype: torch.dtype | None = None,
) -> Batch:
    """All rows of some data as one batch.

    Args:
        data: a batch, a ``Dataset``, a tensor or a numpy array of shape (B, *event_shape).
        y: labels, integers of shape (B,), -1 where unknown; only with a tensor or an array.
        given: named conditions of B rows each; only with a tensor or an array.
        dtype: floating type for numpy arrays, torch's default if None; tensors keep theirs.

    Raises:
        ContractError: the data are of another kind, or shapes disagree.

    Example:

        >>> as_batch(np.zeros((3, 2)), np.array([0, 2, 1]), {"scale": np.ones(3)}).label
        tensor([0, 2, 1])
    """
    if not isinstance(data, Tensor | np.ndarray) and isinstance(data, Batch | HasBatch):
        if y is not None or given:
            raise ContractError(
                f"expected labels and conditions inside the {type(data).__name__}, got some as separate arguments; "
                "make a Dataset(x, y, **given), or pass its x with y and the conditions"
            )
        return data if isinstance(data, Batch) else data.batch(slice(None))
    x = as_column(data, "x", dtype)
    if not x.is_floating_point():
        raise ContractError(
            f"expected floating x, got {x.dtype}; pass ppvae.Dataset(x), which reads grey values, or x.float()"
        )
    if x.dim() < 1 or len(x) == 0:
        raise ContractError(f"expected x of shape (B, *event_shape) with B >= 1, got {tuple(x.shape)}")
    labels = None if y is None else as_labels(y, len(x))
    conditions = {name: _condition(value, name, len(x), dtype) for name, value in (given or {}).items()}
    return Batch(x, labels, conditions, _all_known(labels))


def as_labels(y: Any, rows: int) -> Tensor:
    """Labels as a long tensor of shape (rows,). Raises ContractError unless they are integers of that shape.

    Example:

        >>> as_labels(np.array([0, -1], dtype=np.int8), rows=2)
        tensor([ 0, -1])
    """
    labels = as_column(y, "y")
    if labels.shape != (rows,):
        raise ContractError(f"expected y of shape ({rows},), one label a row of x, got {tuple(labels.shape)}")
    if labels.is_floating_point() or labels.is_complex():
        raise ContractError(
            f"expected y to be class indices, integers from 0 or -1 where unknown, got {labels.dtype}; "
            "pass a real-valued condition by name, e.g. temperature=t, and name it in the pair's forward"
        )
    return labels.long()


def _condition(value: Any, name: str, rows: int, dtype: torch.dtype | None) -> Tensor:
    try:
        condition = as_column(value, name, dtype)
    except ContractError:
        raise ContractError(
            f"expected options of the function, or conditions of {rows} rows as tensors or arrays, got {name!r}, "
            f"{type(value).__name__} {value!r:.50}; check the spelling"
        ) from None
    if condition.dim() < 1 or len(condition) != rows:
        raise ContractError(
            f"expected condition {name!r} to have {rows} rows, one a row of x, got shape {tuple(condition.shape)}"
        )
    if condition.is_floating_point() and condition.isinf().any():
        row = int(condition.isinf().reshape(rows, -1).any(1).nonzero()[0])
        raise ContractError(f"expected a finite condition {name!r}, got infinity first in row {row}; clean the data")
    return condition


def rows_to_check(y: Tensor | None, columns: Sequence[Tensor]) -> Tensor:
    """Indices, on the CPU, of the few rows with which a pair is checked: one of each way in which it can be called.

    They are the first rows without and with a label, a row with the smallest and with the largest label, and the first
    row of each column with a missing element.

    Args:
        y: labels, -1 where unknown; None if there are none.
        columns: x, if it is in memory, and the conditions; at least one of them or y.

    Example:

        >>> rows_to_check(torch.tensor([1, 0] * 10), [torch.zeros(20, 2).index_fill(0, torch.tensor([15]), torch.nan)])
        tensor([ 0,  1,  2,  3, 15])
    """
    rows = len(columns[0]) if y is None else len(y)
    known = torch.zeros(rows, dtype=torch.bool) if y is None else (y >= 0).cpu()
    found = [kind.nonzero()[:CHECKED_ROWS, 0] for kind in (~known, known)]
    if y is not None and known.any():
        labelled = known.nonzero()[:, 0]
        in_order = y.cpu()[labelled].argsort()
        found.append(labelled[in_order[[0, -1]]])
    floating = [column.reshape(rows, -1) for column in columns if column.is_floating_point()]
    found += [column.isnan().any(1).nonzero()[:1, 0].cpu() for column in floating]
    return torch.cat(found).unique()


def _all_known(y: Tensor | None) -> bool:
    return y is not None and bool((y >= 0).all())
