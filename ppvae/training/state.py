"""The state of a run as tensors and values, and how it is restored from a checkpoint."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ppvae.errors import CheckpointError
from ppvae.training import checkpoint
from ppvae.training.backends import Eager
from ppvae.training.checkpoint import Tensors
from ppvae.training.moments import SavedOptimizers, group_options, optimizer_tensors
from ppvae.training.tally import Tally

RNG_CPU, RNG_CUDA, SUM, OPTIMIZER = "run/rng_cpu", "run/rng_cuda", "sum/", "optimizer/"


@dataclass(eq=False)
class Position:
    """The progress of a run.

    Attributes:
        epoch: epochs that are complete.
        step_in_epoch: steps of the present epoch.
        best: the lowest validation loss.
        seconds: spent in training steps.
        tally: the sums of the present epoch.
        metrics: one row per complete epoch.

    Example:

        >>> Position(epoch=2).best
        inf
    """

    epoch: int = 0
    step_in_epoch: int = 0
    best: float = math.inf
    seconds: float = 0.0
    tally: Tally = field(default_factory=Tally)
    metrics: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class RunState:
    """The players' modules, their optimizers, the random state and the position of a run.

    Args:
        backend: it has the players and their optimizers.
        position: changed in place by :meth:`take_up`.
        steps: of an epoch.

    Example:

        >>> from ppvae.engine.player import Player
        >>> line, backend = nn.Linear(1, 1), Eager("cpu")
        >>> backend.prepare([Player("line", line, lambda turn: line(torch.ones(1)).mean(), torch.optim.Adam)])
        >>> RunState(backend, Position(), steps=10).values()["trainable"]
        {'line': ['weight', 'bias']}
    """

    backend: Eager
    position: Position
    steps: int

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The players' modules by the player's name."""
        return {name: descent.player.module for name, descent in self.backend.descents.items()}

    def tensors(self) -> Tensors:
        """Parameters and buffers, moments, random states, sums."""
        return {
            **checkpoint.module_tensors(self.modules),
            **optimizer_tensors(self.backend.descents),
            **self._random_states(),
            **{f"{SUM}{group}:{n}": t for group, sums in self.position.tally.sums.items() for n, t in sums.items()},
        }

    def values(self) -> dict[str, Any]:
        """Everything that is not a tensor, ready for JSON."""
        position = self.position
        return {
            "epoch": position.epoch,
            "step_in_epoch": position.step_in_epoch,
            "best": position.best if math.isfinite(position.best) else None,
            "seconds": position.seconds,
            "counts": position.tally.counts,
            "metrics": position.metrics,
            "trainable": {name: list(descent.parameters) for name, descent in self.backend.descents.items()},
            "groups": {name: group_options(descent.optimizer) for name, descent in self.backend.descents.items()},
        }

    def take_up(self, tensors: Tensors, values: Mapping[str, Any], path: Path) -> None:
        """Continue from a checkpoint: all of it is checked, then all of it is loaded.

        Raises:
            CheckpointError: the checkpoint is not one of this run, or damaged. Nothing is changed then.
        """
        _check_values(values, self.values(), self.steps, path)
        sums = {name: tensor for name, tensor in tensors.items() if name.startswith(SUM)}
        moments = {name: tensor for name, tensor in tensors.items() if name.startswith(OPTIMIZER)}
        others = {name: tensor for name, tensor in tensors.items() if name not in {*sums, *moments, RNG_CUDA}}
        ours = checkpoint.module_tensors(self.modules)
        checkpoint.check_match(others, {**ours, RNG_CPU: torch.get_rng_state()}, path)
        checkpoint.check_finite(others, checkpoint.parameter_names(self.modules), path)
        restored = _tally(sums, values["counts"], self.backend.device, path)
        _check_random_states(tensors, path)
        optimizers = SavedOptimizers(moments, values["groups"], self.backend.descents, path)

        checkpoint.load_modules(others, self.modules)
        optimizers.load()
        position = self.position
        position.epoch, position.step_in_epoch = values["epoch"], values["step_in_epoch"]
        position.best = math.inf if values["best"] is None else values["best"]
        position.seconds, position.metrics, position.tally = values["seconds"], list(values["metrics"]), restored
        torch.set_rng_state(tensors[RNG_CPU])
        if self.backend.device.type == "cuda" and RNG_CUDA in tensors:  # absent if the run began on a CPU
            torch.cuda.set_rng_state(tensors[RNG_CUDA], self.backend.device)

    def _random_states(self) -> Tensors:
        on_cuda = self.backend.device.type == "cuda"
        cuda = {RNG_CUDA: torch.cuda.get_rng_state(self.backend.device)} if on_cuda else {}
        return {RNG_CPU: torch.get_rng_state(), **cuda}


def _check_values(values: Mapping[str, Any], ours: Mapping[str, Any], steps: int, path: Path) -> None:
    """Raise CheckpointError unless each value is there and possible."""
    missing = sorted(ours.keys() - values.keys())
    if missing:
        raise CheckpointError(f"{path} lacks {', '.join(missing)}, so no run can be resumed from it; start anew")
    epoch, metrics, counts = values["epoch"], values["metrics"], values["counts"]
    rows = [row.get("epoch") for row in metrics if isinstance(row, dict)] if isinstance(metrics, list) else None
    possible = {
        "epoch": _is_count(epoch),
        "step_in_epoch": _is_count(values["step_in_epoch"]) and values["step_in_epoch"] <= steps,
        "best": values["best"] is None or _is_number(values["best"]),
        "seconds": _is_number(values["seconds"]) and values["seconds"] >= 0,
        "counts": isinstance(counts, dict) and all(map(_is_count, counts.values())),
        "metrics": _is_count(epoch) and rows == list(range(1, epoch + 1)) and len(metrics) == epoch,
        "groups": isinstance(values["groups"], dict),
    }
    for name, fine in possible.items():
        if not fine:
            raise CheckpointError(
                f"expected a possible value of {name!r} in {path}, got {str(values[name])[:80]}; the file was changed. "
                "Nothing was loaded. Use another checkpoint of the run, or start anew"
            )
    _check_trainable(values["trainable"], ours["trainable"], path)


def _check_trainable(saved: Any, ours: Mapping[str, list[str]], path: Path) -> None:
    """Raise CheckpointError, with the first difference, unless the same parameters are trained."""
    theirs = saved if isinstance(saved, dict) else {}
    for player in sorted(ours.keys() | theirs.keys()):
        here, there = ours.get(player, []), theirs.get(player, [])
        if here != there:
            name = next(iter(sorted(set(here) ^ set(there))), "their order")
            raise CheckpointError(
                f"expected the trainable parameters of player {player!r} to be those of {path}, but {name!r} is "
                f"{'trained here and was not' if name in here else 'not trained here and was'} when the checkpoint was "
                "written; set requires_grad as it was. Nothing was loaded"
            )


def _tally(sums: Mapping[str, Tensor], counts: Mapping[str, int], device: torch.device, path: Path) -> Tally:
    """The sums of the present epoch. Raises CheckpointError unless they are finite float64 scalars with counts."""
    tally = Tally()
    for name, total in sums.items():
        group, part = name.removeprefix(SUM).rsplit(":", 1)
        if total.shape != () or total.dtype != torch.float64 or not total.isfinite() or not counts.get(group):
            raise CheckpointError(f"expected {name} in {path} to be a finite sum, got {total}; nothing was loaded")
        tally.sums.setdefault(group, {})[part] = total.to(device)
    if tally.sums.keys() != counts.keys():
        raise CheckpointError(f"expected the sums of {sorted(counts)} in {path}, got those of {sorted(tally.sums)}")
    tally.counts = dict(counts)
    return tally


def _check_random_states(tensors: Tensors, path: Path) -> None:
    """Raise CheckpointError unless torch accepts the states."""
    try:
        torch.Generator().set_state(tensors[RNG_CPU])
        if RNG_CUDA in tensors and torch.cuda.is_available():
            torch.Generator("cuda").set_state(tensors[RNG_CUDA])
    except (RuntimeError, TypeError) as error:
        raise CheckpointError(f"expected a state of torch's random generator in {path}, got {error}") from error


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
