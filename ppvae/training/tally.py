"""Means over the steps of an epoch, added up on the device."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ppvae.engine.player import Player
from ppvae.training.backends import LOSS
from ppvae.training.players import PAIR

STEP = ""  # the group of numbers that belong to the step and not to one player
Sums = dict[str, dict[str, Tensor]]


class Tally:
    """Sums of named scalars by group, in float64, and how often each group was added.

    Example:

        >>> tally = Tally()
        >>> for value in (1.0, 3.0):
        ...     tally.add("critic/z", {"loss": torch.tensor(value)})
        >>> tally.means()
        {'critic/z': {'loss': 2.0}}
    """

    def __init__(self) -> None:
        self.sums: Sums = {}
        self.counts: dict[str, int] = {}

    def add(self, group: str, numbers: Mapping[str, Tensor]) -> None:
        """Add scalars, without waiting for their device."""
        if not numbers:
            return
        sums = self.sums.setdefault(group, {})
        for name, value in numbers.items():
            if name not in sums:
                sums[name] = value.new_zeros((), dtype=torch.float64)
            sums[name] += value
        self.counts[group] = self.counts.get(group, 0) + 1

    def means(self) -> dict[str, dict[str, float]]:
        """The mean of each number. Waits for the device, once."""
        flat = [total for sums in self.sums.values() for total in sums.values()]
        values = iter(torch.stack(flat).tolist() if flat else [])
        return {group: {name: next(values) / self.counts[group] for name in sums} for group, sums in self.sums.items()}

    def clear(self) -> None:
        """Begin the next epoch."""
        self.sums, self.counts = {}, {}


def row_of(players: Sequence[Player], means: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The numbers of an epoch by the names of the log.

    The pair's loss is "loss" and its parts have their own names. The loss of another player has the player's name, and
    its parts are named "critic/z/part". The numbers of ``Player.log`` come last.

    Example:

        >>> row_of([Player("pair", None, None, None)], {"pair": {"distortion": 80.0, "rate/z": 20.0}})
        {'loss': 100.0, 'distortion': 80.0, 'rate/z': 20.0}
    """
    row: dict[str, float] = {}
    for player in players:
        parts = means.get(player.name)
        if parts is None:  # it did not descend in this epoch
            continue
        of_pair = player.name == PAIR
        row[LOSS if of_pair else player.name] = sum(parts.values())
        if set(parts) != {LOSS}:
            row |= {name if of_pair else f"{player.name}/{name}": value for name, value in parts.items()}
    row |= means.get(STEP, {})
    for player in players:
        if player.log is not None:
            row |= {name: float(value) for name, value in player.log().items()}
    return row
