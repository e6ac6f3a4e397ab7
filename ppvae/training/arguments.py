"""The arguments of ``fit`` and ``train``: each is read, or refused with what was expected, before anything changes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyro.infer
import torch

from ppvae.engine.player import Player
from ppvae.objectives.base import Objective, require_count
from ppvae.training.backends import Eager, as_backend
from ppvae.training.batches import Batching
from ppvae.training.optimizers import check_optimizer, kind_of

SEEDS = range(-(2**63), 2**64)  # those of torch's generators


@dataclass(frozen=True)
class Validation:
    """What is evaluated after each epoch, in evaluation mode without gradients.

    Args:
        data: on which the loss and its parts are taken: a Dataset, a tensor or a numpy array.
        evaluate: its numbers are added to the metrics.

    Example:

        >>> import torch
        >>> Validation(data=torch.zeros(5, 2), evaluate=lambda: {"accuracy": 0.9}).evaluate()
        {'accuracy': 0.9}
    """

    data: Any = None
    evaluate: Callable[[], Mapping[str, float]] | None = None

    def __post_init__(self) -> None:
        if self.evaluate is not None and not callable(self.evaluate):
            raise TypeError(
                f"expected evaluate to be a function () -> dict of numbers, got {kind_of(self.evaluate)}; "
                "write lambda: {...}"
            )


@dataclass(frozen=True)
class RunDir:
    """The folder of a run.

    Args:
        path: folder for config.json, metrics.jsonl, last.safetensors and best.safetensors.
        resume: continue from the folder's last checkpoint, if there is one, to the same numbers as an uninterrupted
            run (on one machine; on CUDA as far as its kernels are deterministic).

    Example:

        >>> RunDir("runs/digits", resume=True).path.name
        'digits'
    """

    path: Path
    resume: bool = False

    def __init__(self, path: str | Path, resume: bool = False):
        if not isinstance(path, str | Path):
            raise TypeError(f"expected run_dir to be a path or RunDir(path, resume=...), got {kind_of(path)}")
        object.__setattr__(self, "path", Path(path))
        object.__setattr__(self, "resume", bool(resume))


def as_batching(batch_size: int | Batching) -> Batching:
    """A batching, or a number of rows per step as one. Raises ValueError or TypeError for another number.

    Example:

        >>> as_batching(64).batch_size
        64
    """
    return batch_size if isinstance(batch_size, Batching) else Batching(batch_size)


def as_validation(validation: Any) -> Validation:
    """A validation as it is, or one on these data; one of nothing for None.

    Example:

        >>> as_validation(None).data is None
        True
    """
    return validation if isinstance(validation, Validation) else Validation(validation)


def as_run_dir(run_dir: str | Path | RunDir | None) -> RunDir | None:
    """A run's folder as it is, or one that is not resumed; None for none.

    Example:

        >>> as_run_dir("runs/digits").resume, as_run_dir(None) is None
        (False, True)
    """
    return run_dir if run_dir is None or isinstance(run_dir, RunDir) else RunDir(run_dir)


def as_seed(seed: Any) -> int:
    """A seed as an int. Raises TypeError for anything but whole numbers, ValueError where torch takes none.

    Example:

        >>> as_seed(3)
        3
    """
    try:
        number = int(seed.__index__())
    except AttributeError:
        raise TypeError(f"expected seed to be a whole number, got {seed!r}") from None
    if number not in SEEDS:
        raise ValueError(f"expected seed from -2**63 to 2**64 - 1, got {number}")
    return number


def as_objective(objective: Any) -> pyro.infer.ELBO:
    """An objective that ``fit`` can train. Raises TypeError, with the remedy, for any other object.

    Example:

        >>> import ppvae
        >>> type(as_objective(ppvae.ELBO())).__name__
        'ELBO'
    """
    if isinstance(objective, type):
        name = objective.__name__
        raise TypeError(f"expected an objective, got the class {name} itself; write {name}()")
    remedy = next((text for kind, text in NOT_TRAINED.items() if isinstance(objective, kind)), None)
    trains = hasattr(objective, "differentiable_loss") or hasattr(objective, "loss_and_grads")
    if isinstance(objective, Objective) or (isinstance(objective, pyro.infer.ELBO) and trains and remedy is None):
        return objective
    raise TypeError(
        "expected an objective of ppvae such as ppvae.ELBO(), or an estimator of Pyro's such as Trace_ELBO(), got "
        f"{kind_of(objective)}; {remedy or 'see ppvae.objectives for the list'}"
    )


_WITHOUT_JIT = "use the estimator of the same name without Jit"
NOT_TRAINED: dict[type, str] = {
    pyro.infer.JitTrace_ELBO: _WITHOUT_JIT,
    pyro.infer.JitTraceEnum_ELBO: _WITHOUT_JIT,
    pyro.infer.JitTraceGraph_ELBO: _WITHOUT_JIT,
    pyro.infer.JitTraceMeanField_ELBO: _WITHOUT_JIT,
    pyro.infer.ReweightedWakeSleep: "use ppvae.ReweightedWakeSleep(num_particles)",
    pyro.infer.TraceTailAdaptive_ELBO: "it has no loss value; use ppvae.Renyi(alpha, num_particles)",
    pyro.infer.Trace_MMD: "use ppvae.wae() or ppvae.ELBO() + ppvae.MaximumMeanDiscrepancy(weight)",
    pyro.infer.EnergyDistance: "use ppvae.wae() or ppvae.Reconstruction() + ppvae.MaximumMeanDiscrepancy(weight)",
}


def check_players(players: Any) -> list[Player]:
    """A list of players with different names. Raises TypeError or ValueError for anything else.

    Example:

        >>> line = torch.nn.Linear(1, 1)
        >>> player = Player("line", line, lambda turn: line(torch.ones(1)).mean(), torch.optim.Adam)
        >>> [each.name for each in check_players([player])]
        ['line']
    """
    listed = list(players) if isinstance(players, Sequence) else []
    strangers = [kind_of(player) for player in listed if not isinstance(player, Player)]
    if not listed or strangers:
        got = strangers[0] if strangers else kind_of(players)
        raise TypeError(f"expected a list of at least one Player(name, module, loss, optimizer), got {got}")
    names = [player.name for player in listed]
    if len(set(names)) < len(names) or not all(isinstance(name, str) and name and ":" not in name for name in names):
        raise ValueError(f"expected players with different names, without a colon, got {names}")
    for player in listed:
        check_optimizer(player.optimizer)
        require_count(f"every of player {player.name!r}", player.every)
    return listed


@dataclass(frozen=True)
class Plan:
    """What ``fit`` and ``train`` have in common.

    Example:

        >>> Plan(epochs=3, batching=Batching(), run_dir=None, backend=Eager("cpu"), seed=0, progress=False).device
        device(type='cpu')
    """

    epochs: int
    batching: Batching
    run_dir: RunDir | None
    backend: Eager
    seed: int
    progress: bool

    @property
    def device(self) -> torch.device:
        """The device of training."""
        return self.backend.device


def plan_of(
    epochs: int,
    batch_size: int | Batching,
    run_dir: str | Path | RunDir | None,
    device: str | torch.device | Eager,
    seed: int,
    progress: bool,
) -> Plan:
    """The plan with these arguments. Raises TypeError, ValueError or DeviceError for the first that is refused.

    Example:

        >>> plan_of(3, 128, None, "cpu", 0, False).batching.batch_size
        128
    """
    checked = require_count("epochs", epochs), as_batching(batch_size), as_run_dir(run_dir)
    return Plan(*checked, as_backend(device), as_seed(seed), bool(progress))
