"""A run, step by step: its players' turns, its log, its checkpoints, its stops."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import repeat
from typing import Any

import torch

from ppvae.engine.batch import Batch
from ppvae.engine.player import Player, Turn
from ppvae.errors import Interrupted, NonFiniteLossError
from ppvae.training.backends import Eager
from ppvae.training.batches import Batches
from ppvae.training.players import PAIR
from ppvae.training.progress import ProgressReport
from ppvae.training.run_folder import RunFolder
from ppvae.training.signals import StopRequest
from ppvae.training.state import Position, RunState
from ppvae.training.tally import STEP, row_of

CHECK_EVERY = 50  # steps between two looks at the loss; each look waits for the device
Evaluate = Callable[[], Mapping[str, float]]


class Run:
    """Players and their progress in training.

    Args:
        players: in the order of their turns.
        batches: the steps of every epoch.
        backend: how a player descends.
        folder: where the run is kept.

    Example:

        >>> import torch
        >>> from ppvae.data import Dataset
        >>> from ppvae.training.batches import Batching
        >>> line, backend = torch.nn.Linear(1, 1), Eager("cpu")
        >>> player = Player("line", line, lambda turn: line(turn.batches[0].x).square().mean(), torch.optim.Adam)
        >>> backend.prepare([player])
        >>> batches = Batches(Dataset(torch.ones(6, 1)), Batching(3), seed=0)
        >>> run = Run([player], batches, backend, RunFolder(None, {}, {}))
        >>> run.train(2, dict, ProgressReport(2, 2, active=False), StopRequest())
        >>> run.step
        4
    """

    def __init__(self, players: Sequence[Player], batches: Batches, backend: Eager, folder: RunFolder):
        self.players, self.batches, self.backend, self.folder = players, batches, backend, folder
        self.position = Position()
        self.state = RunState(backend, self.position, len(batches))
        self.needs_other = any(player.needs_other for player in players)
        if folder.resumed:
            self.state.take_up(*folder.read_last(), folder.require_last())
            folder.write_metrics(self.position.metrics)  # rows written after the last checkpoint are discarded
        else:
            self.save()  # a good checkpoint, even if the first epoch fails

    @property
    def step(self) -> int:
        """The number of the next step."""
        return self.position.epoch * len(self.batches) + self.position.step_in_epoch

    def train(self, epochs: int, evaluate: Evaluate, report: ProgressReport, request: StopRequest) -> None:
        """Train until ``epochs`` epochs are complete, or until a stop is requested."""
        while self.position.epoch < epochs:
            self._train_epoch(report, request)
            self._finish_epoch(evaluate, report)
            self._stop_if(request)

    def _train_epoch(self, report: ProgressReport, request: StopRequest) -> None:
        position, since = self.position, time.perf_counter()
        for batches, other in self._steps():
            self._take_turns(Turn(batches, other, self.step))
            position.step_in_epoch += 1
            report.advance()
            if position.step_in_epoch % CHECK_EVERY == 0:
                report.loss(sum(self._means()[self.players[0].name].values()))
            position.seconds, since = position.seconds + time.perf_counter() - since, time.perf_counter()
            self._stop_if(request)

    def _steps(self) -> Iterable[tuple[list[Batch], list[Batch]]]:
        """The rest of the epoch's batches, and as many independent ones if a player reads them."""
        epoch, start = self.position.epoch, self.position.step_in_epoch
        batches = self.batches.epoch(epoch, start)
        other = self.batches.other_order().epoch(epoch, start) if self.needs_other else repeat([])
        return zip(batches, other, strict=False)

    def _take_turns(self, turn: Turn) -> None:
        for player in self.players:
            if turn.step % player.every == 0:
                self.position.tally.add(player.name, self.backend.descend(player, turn))
        self.position.tally.add(STEP, turn.log)

    def _finish_epoch(self, evaluate: Evaluate, report: ProgressReport) -> None:
        position, means = self.position, self._means()
        self._check_parameters()
        row: dict[str, Any] = {"epoch": position.epoch + 1, "step": self.step, "seconds": round(position.seconds, 3)}
        row |= row_of(self.players, means)
        row |= self._evaluated(evaluate, row)
        position.epoch, position.step_in_epoch = position.epoch + 1, 0
        position.tally.clear()
        position.metrics.append(row)
        self.folder.write_metrics(position.metrics)
        if row.get("validation_loss", math.inf) < position.best:
            position.best = row["validation_loss"]
            self.save(best=True)
        self.save()
        report.epoch(row, means.get(PAIR, {}))

    def _evaluated(self, evaluate: Evaluate, row: Mapping[str, Any]) -> dict[str, float]:
        try:
            numbers = {name: float(value) for name, value in evaluate().items()}
        except Exception:
            self.save()  # the epoch's training is kept; a resumed run evaluates first
            raise
        taken = sorted(numbers.keys() & row.keys())
        if taken:
            raise ValueError(f"expected evaluate to give numbers under new names, got {taken}; rename them")
        return numbers

    def _means(self) -> dict[str, dict[str, float]]:
        """The means over the epoch so far. Raises NonFiniteLossError."""
        means = self.position.tally.means()
        for group, parts in means.items():
            for name, value in parts.items():
                if not math.isfinite(value):
                    raise NonFiniteLossError(
                        f"the loss turned {value} ({group or name}: {name}) within the {CHECK_EVERY} steps before step "
                        f"{self.step} (epoch {self.position.epoch + 1}); {self.folder.kept()}. Lower the learning "
                        "rate, or look for extreme data"
                    )
        return means

    def save(self, best: bool = False) -> None:
        """Write a checkpoint."""
        if self.folder.path is not None:
            self.folder.save(self.state.tensors(), self.state.values(), best)

    def _stop_if(self, request: StopRequest) -> None:
        if not request:
            return
        self._means()
        self._check_parameters()
        self.save()
        raise Interrupted(
            f"stopped by {request.signal_name} at step {self.step} (epoch {self.position.epoch + 1}); "
            f"{self.folder.kept()}. Resume with run_dir=RunDir(path, resume=True) (on a command line, --resume)",
            request.signal_number or 0,
        )

    def _check_parameters(self) -> None:
        for player, descent in self.backend.descents.items():
            for name, parameter in descent.parameters.items():
                if not torch.isfinite(parameter).all():
                    raise NonFiniteLossError(
                        f"parameter {name!r} of player {player!r} turned NaN or infinite before step {self.step}; "
                        f"{self.folder.kept()}. Lower the learning rate"
                    )
