"""Batches made of parts: the labelled rows of a step, and the unlabelled ones.

Each part is homogeneous (every label known, or none), so that labelled rows pay for their own class only,
stock Pyro estimators train on partially labelled data as they are, and nothing need be asked of the device.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from ppvae.data import Dataset
from ppvae.engine.tracing import mark_known

OTHER = 1 << 32  # apart from the seed of any other run
Part = tuple[Tensor] | tuple[Tensor, Tensor]


class Batches:
    """The steps of an epoch; which rows stand in which step is a function of (seed, epoch) alone.

    Args:
        data: the data, on the training device.
        batch_size: rows a step; of partially labelled data, the unlabelled rows a step.
        labelled_per_step: labelled rows beside them, at most; they are gone through in turn.
        seed: of the order.
        steps: of an epoch; None for as many as go through the data once.
    """

    def __init__(
        self, data: Dataset, batch_size: int, labelled_per_step: int = 100, seed: int = 0, steps: int | None = None
    ):
        if steps is not None and steps < 1:
            raise ValueError(f"expected at least 1 step an epoch, got {steps}")
        if batch_size < 1 or labelled_per_step < 1:
            raise ValueError(f"expected batch sizes of at least 1, got {batch_size} and {labelled_per_step}")
        self.data, self.seed, self._steps = data, seed, steps
        self._labelled, self._unlabelled = data.rows_by_label()
        self._partial = bool(len(self._labelled)) and bool(len(self._unlabelled))
        self._main = self._unlabelled if len(self._unlabelled) else self._labelled
        self.batch_size = min(batch_size, len(self._main))
        self.labelled_per_step = min(labelled_per_step, len(self._labelled)) if self._partial else 0

    def __len__(self) -> int:
        """Steps of an epoch; rows that fill no whole batch wait for a later epoch's order."""
        return self._steps or len(self._main) // self.batch_size

    def epoch(self, epoch: int, start: int = 0) -> Iterator[list[Part]]:
        """The steps of one epoch from step ``start`` on, each a list of parts (x,) or (x, y)."""
        generator = torch.Generator().manual_seed(_folded((self.seed << 20) + epoch))
        device = self.data.x.device
        main = _order(self._main, len(self) * self.batch_size, generator).to(device)
        labelled = _order(self._labelled, len(self) * self.labelled_per_step, generator).to(device)
        for step in range(start, len(self)):
            parts = [self._part(_slice(main, step, self.batch_size), bool(len(self._unlabelled)))]
            if self._partial:
                parts.append(self._part(_slice(labelled, step, self.labelled_per_step), False))
            yield parts

    def other_order(self) -> "Batches":
        """Batches of the same data in an order independent of this one's."""
        return Batches(self.data, self.batch_size, max(self.labelled_per_step, 1), self.seed + OTHER, self._steps)

    def _part(self, index: Tensor, unlabelled: bool) -> Part:
        x = self.data.rows(index)
        return (x,) if unlabelled else (x, mark_known(self.data.y[index]))


def _folded(seed: int) -> int:
    """32 bits of a seed, all that torch's generator on a CPU heeds, with the higher ones mixed in."""
    return (seed ^ (seed >> 32) * 0x9E3779B1) % 2**32


def _slice(order: Tensor, step: int, size: int) -> Tensor:
    return order[step * size : (step + 1) * size]


def _order(rows: Tensor, length: int, generator: torch.Generator) -> Tensor:
    """``length`` of the rows: as many whole shuffles as it takes, one after the other."""
    if length == 0:
        return rows[:0]
    shuffles = [rows[torch.randperm(len(rows), generator=generator)] for _ in range(-(-length // len(rows)))]
    return torch.cat(shuffles)[:length]
