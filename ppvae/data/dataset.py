"""A data set in memory, on the training device, read by index."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ppvae.data.factors import Factors
from ppvae.data.lazy import LazyImages
from ppvae.errors import DataError

Binarization = Literal["dynamic", "fixed", "none"]
BINARIZATIONS: tuple[Binarization, ...] = ("dynamic", "fixed", "none")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Data x and, where there are any, labels y.

    Args:
        x: shape (N, *event_shape). uint8 is read as grey values 0..255 and given out as floats in [0, 1]; a
            floating tensor is given out as it is. :class:`~ppvae.data.lazy.LazyImages` may stand in for uint8.
        y: labels, long, shape (N,), -1 where unknown; None where there are none.
        num_classes: number of classes of y.
        binarization: "dynamic" draws each pixel anew, with probability its grey value, whenever a row is
            read; "fixed" did so once (:meth:`binarized`); "none" gives grey values.
        name: what tables and reports call the data.
        factors: of data that holds one row for each combination, in their order; None for those of ``x``, such as
            :class:`~ppvae.data.Sprites` has, if any.
    """

    x: Tensor | LazyImages
    y: Tensor | None = None
    num_classes: int | None = None
    binarization: Binarization = "none"
    name: str = "data"
    factors: Factors | None = None

    def __post_init__(self) -> None:
        if self.x.dim() < 2 or len(self.x) == 0:
            raise DataError(f"expected data of shape (N, *event_shape) with N >= 1, got {tuple(self.x.shape)}")
        if self.x.dtype != torch.uint8 and not self.x.is_floating_point():
            raise DataError(f"expected uint8 grey values or floating data, got {self.x.dtype}; convert x first")
        if self.binarization not in BINARIZATIONS:
            raise DataError(f"expected binarization to be one of {BINARIZATIONS}, got {self.binarization!r}")
        if self.binarization == "dynamic" and self.x.is_floating_point() and not ((self.x >= 0) & (self.x <= 1)).all():
            raise DataError(
                f"expected values in [0, 1] to binarize, got {self.x.min():.4g} to {self.x.max():.4g} (NaN counts as "
                "outside); rescale or clean x"
            )
        if self.y is not None:
            _check_labels(self.y, len(self.x), self.num_classes)
        if self.factors is None and isinstance(self.x, LazyImages):
            object.__setattr__(self, "factors", self.x.factors)
        if self.factors is not None and len(self.factors) != len(self.x):
            raise DataError(
                f"expected a row for each of the {len(self.factors)} combinations of factors, got {len(self.x)} rows; "
                "give a part of a grid no factors"
            )

    def __len__(self) -> int:
        return len(self.x)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return tuple(self.x.shape[1:])

    def rows(self, index) -> Tensor:
        """The data at ``index`` (a slice or an index tensor) as floats, binarized if dynamic."""
        x = self.grey(index)
        return (torch.rand_like(x) < x).to(x.dtype) if self.binarization == "dynamic" else x

    def grey(self, index) -> Tensor:
        """The data at ``index`` as floats, before dynamic binarization."""
        x = self.x[index]
        return x / 255 if x.dtype == torch.uint8 else x

    def most_probable(self, index) -> Tensor:
        """:meth:`rows` without randomness: for dynamic binarization, whether each grey value is above a half."""
        x = self.grey(index)
        return (x > 0.5).to(x.dtype) if self.binarization == "dynamic" else x

    def labels(self, index) -> Tensor | None:
        return None if self.y is None else self.y[index]

    def rows_by_label(self) -> tuple[Tensor, Tensor]:
        """Indices, on the CPU, of the rows whose label is known and of those whose label is not."""
        known = torch.zeros(len(self), dtype=torch.bool) if self.y is None else (self.y >= 0).cpu()
        return known.nonzero().squeeze(1), (~known).nonzero().squeeze(1)

    def take(self, index) -> "Dataset":
        """The rows at ``index`` (a slice, an index tensor or a mask), as a data set in memory.

        A slice of data that are in memory shares theirs. Factors are left behind: a part is no grid of them.
        """
        return replace(self, x=self.x[index], y=self.labels(index), factors=None)

    def to(self, device) -> "Dataset":
        """The same data on another device."""
        return replace(self, x=self.x.to(device), y=None if self.y is None else self.y.to(device))

    def unlabelled(self) -> "Dataset":
        """The same data without labels."""
        return replace(self, y=None)

    def binarized(self, seed: int) -> "Dataset":
        """Each pixel drawn once, by ``seed``, with probability its grey value: fixed binary data."""
        if self.x.dtype != torch.uint8:
            raise DataError(f"expected uint8 grey values to binarize, got {self.x.dtype}")
        if isinstance(self.x, LazyImages):
            raise DataError(
                f"expected data in memory to binarize once and for all, got {type(self.x).__name__}, made or read when "
                'it is indexed; use binarization "dynamic" or "none", or take rows of it first'
            )
        generator = torch.Generator().manual_seed(seed)
        draws = torch.stack([torch.bernoulli(x / 255, generator=generator).byte() for x in self.x.cpu().split(1)])
        return replace(self, x=draws.reshape(self.x.shape).mul(255).to(self.x.device), binarization="fixed")


@dataclass(frozen=True, eq=False)
class Splits:
    """Training and test part of one data set, and a validation part if one is held out."""

    train: Dataset
    test: Dataset
    validation: Dataset | None = None


def _check_labels(y: Tensor, rows: int, num_classes: int | None) -> None:
    if y.shape != (rows,) or y.dtype != torch.long:
        raise DataError(f"expected labels to be a long tensor of shape ({rows},), got {y.dtype} of {tuple(y.shape)}")
    top = "the number of classes less 1" if num_classes is None else num_classes - 1
    if y.min() < -1 or (num_classes is not None and y.max() >= num_classes):
        raise DataError(f"expected labels from 0 to {top}, or -1 where unknown, got {int(y.min())} to {int(y.max())}")
