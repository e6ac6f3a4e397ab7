"""The batches of each step: unlabelled rows, labelled rows, or one batch of each.

Each batch is homogeneous (every label known, or none), so that stock Pyro estimators train on partially labelled data
as they are, and a step never asks the device which labels are known.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ppvae.data import Dataset
from ppvae.engine.batch import Batch
from ppvae.objectives.base import require_count

OTHER = 1 << 32  # added to the seed of an independent order: apart from the seed of any other run


@dataclass(frozen=True)
class Batching:
    """How many rows a step has, and how many steps an epoch.

    Args:
        batch_size: rows per step; of partially labelled data, unlabelled rows per step.
        labelled_per_step: of partially labelled data, the most labelled rows per step.
        steps_per_epoch: default one pass over the data (over the unlabelled rows, if they are partially labelled). If
            smaller, each epoch uses a random subset of the rows.

    Raises ValueError or TypeError for anything but whole numbers of at least 1.

    Example:

        >>> Batching(batch_size=100, labelled_per_step=50)
        Batching(batch_size=100, labelled_per_step=50, steps_per_epoch=None)
    """

    batch_size: int = 128
    labelled_per_step: int = 100
    steps_per_epoch: int | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None or name != "steps_per_epoch":
                object.__setattr__(self, name, require_count(name, value))


class Batches:
    """The steps of every epoch. Which rows a step has is a function of (seed, epoch, step) alone.

    Args:
        data: the data, on the training device.
        batching: rows per step and steps per epoch; larger numbers than there are rows become the number of rows.
        seed: of the order.

    Example:

        >>> data = Dataset(torch.arange(6.0).unsqueeze(1))
        >>> batches = Batches(data, Batching(batch_size=3), seed=0)
        >>> len(batches), [len(step[0]) for step in batches.epoch(0)]
        (2, [3, 3])
    """

    def __init__(self, data: Dataset, batching: Batching, seed: int = 0):
        self.data, self.batching, self.seed = data, batching, seed
        self._labelled, self._unlabelled = data.rows_by_label()
        self.partial = bool(len(self._labelled)) and bool(len(self._unlabelled))
        self._main = self._unlabelled if len(self._unlabelled) else self._labelled
        self.batch_size = min(batching.batch_size, len(self._main))
        self.labelled_per_step = min(batching.labelled_per_step, len(self._labelled)) if self.partial else 0

    def __len__(self) -> int:
        """Steps of an epoch; rows that fill no whole batch wait for the order of a later epoch."""
        return self.batching.steps_per_epoch or len(self._main) // self.batch_size

    def epoch(self, epoch: int, start: int = 0) -> Iterator[list[Batch]]:
        """The steps of one epoch from step ``start`` on: each one batch, or the unlabelled and the labelled rows."""
        generator = torch.Generator().manual_seed(_folded((self.seed << 20) + epoch))
        device = self.data.x.device
        main = _order(self._main, len(self) * self.batch_size, generator).to(device)
        labelled = _order(self._labelled, len(self) * self.labelled_per_step, generator).to(device)
        for step in range(start, len(self)):
            batches = [self._batch(_slice(main, step, self.batch_size), not len(self._unlabelled))]
            if self.partial:
                batches.append(self._batch(_slice(labelled, step, self.labelled_per_step), True))
            yield batches

    def other_order(self) -> "Batches":
        """Batches of the same data in an independent order."""
        return Batches(self.data, self.batching, self.seed + OTHER)

    def _batch(self, index: Tensor, labelled: bool) -> Batch:
        batch = self.data.batch(index, all_known=labelled)
        return batch if labelled else replace(batch, y=None)


def _folded(seed: int) -> int:
    """The 32 bits of a seed that torch's generator on a CPU reads, with the higher bits mixed in."""
    return (seed ^ (seed >> 32) * 0x9E3779B1) % 2**32


def _slice(order: Tensor, step: int, size: int) -> Tensor:
    return order[step * size : (step + 1) * size]


def _order(rows: Tensor, length: int, generator: torch.Generator) -> Tensor:
    """``length`` rows: whole shuffles one after the other, the last one cut."""
    if length == 0:
        return rows[:0]
    shuffles = [rows[torch.randperm(len(rows), generator=generator)] for _ in range(-(-length // len(rows)))]
    return torch.cat(shuffles)[:length]
