"""Training: ``fit`` for a pair, ``train`` for any players. Both run the same loop."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyro
import pyro.infer
import torch
from torch import nn

from ppvae.data import Dataset, as_dataset
from ppvae.engine.batch import Array
from ppvae.engine.checks import check_modules
from ppvae.engine.isolation import denormals_flushed, evaluating, forked_randomness, frozen, isolated, modes_restored
from ppvae.engine.player import Optimizer, Player
from ppvae.evaluation.loss import dataset_for
from ppvae.training.anew import begin_anew
from ppvae.training.arguments import Plan, RunDir, Validation, as_objective, as_validation, check_players, plan_of
from ppvae.training.backends import Eager
from ppvae.training.batches import Batches, Batching
from ppvae.training.checks import check_data, check_num_data, check_objective
from ppvae.training.describe import describe, describe_data, describe_players, digest_of_module
from ppvae.training.device import environment
from ppvae.training.optimizers import adam, check_optimizer
from ppvae.training.players import players_of
from ppvae.training.progress import ProgressReport
from ppvae.training.run import Evaluate, Run
from ppvae.training.run_folder import RunFolder, locked
from ppvae.training.signals import stop_on_signals
from ppvae.training.validation import PairEvaluation, held_out


@dataclass
class FitResult:
    """What :func:`fit` and :func:`train` return. The modules themselves are trained in place.

    Attributes:
        metrics: one dictionary per epoch. "epoch", "step" and "seconds" (of training) say where it was written.
            "loss" is the pair's loss, and each part of it has its own name ("distortion", "rate/z"); both are means per
            datum over the epoch, in nats, and the parts add up to the loss. Another player's loss has the player's name
            ("critic/z"). Of data that are labelled in part, "unlabelled_loss" and "unlabelled/distortion" are the means
            over the unlabelled rows alone. "validation_loss" and "validation/distortion" are those of the validation
            data. What ``evaluate`` gave has the names that it gave.
        run_dir: the run folder, if there is one.

    Example:

        >>> FitResult([{"epoch": 1, "loss": 101.5}, {"epoch": 2, "loss": 98.25}]).metrics[-1]["loss"]
        98.25
    """

    metrics: list[dict[str, Any]] = field(default_factory=list)
    run_dir: Path | None = None


def fit(
    model: nn.Module,
    guide: nn.Module,
    objective: pyro.infer.ELBO,
    data: Dataset | Array,
    *,
    epochs: int,
    batch_size: int | Batching = 128,
    optimizer: Optimizer | None = None,
    train_model: bool = True,
    validation: Dataset | Array | Validation | None = None,
    run_dir: str | Path | RunDir | None = None,
    device: str | torch.device | Eager = "auto",
    seed: int = 0,
    progress: bool = True,
) -> FitResult:
    """Train a pair in place, and the critics and multipliers of its objective.

    Args:
        model: generative model, called ``model(x, y, **given)``.
        guide: guide, called ``guide(x, y, **given)``.
        objective: an objective of ppvae, or an estimator of Pyro's such as ``Trace_ELBO()``. Its critics and
            multipliers return to their first state in each fit that does not resume a run.
        data: a :class:`~ppvae.data.Dataset`, a tensor or a numpy array of shape (N, *event_shape).
        epochs: passes over the data (over the unlabelled rows, if they are partially labelled).
        batch_size: rows per step, or :class:`Batching` for labelled rows per step and steps per epoch.
        optimizer: parameters -> torch optimizer of the pair; default ``adam(1e-3)``. A learning-rate schedule is a part
            of it: ``adam(1e-3, schedule=lambda step: 0.99**step)``.
        train_model: False freezes the model (parameters, batch statistics, dropout) and trains the guide alone.
        validation: data on which the loss is taken after each epoch, or :class:`Validation` to evaluate more. The loss
            is taken in evaluation mode with fixed random numbers, on rows without labels unless every training row has
            one, and with the objective's schedules as at the end of training. ``best.safetensors`` is the epoch with
            the lowest one (a critic or a multiplier changes the loss from epoch to epoch).
        run_dir: folder for configuration, metrics and checkpoints, or :class:`RunDir` to resume the run in it. None
            writes nothing.
        device: "auto" (CUDA if there is one), "cpu", "cuda", "cuda:1"; or a backend, which computes the steps.
        seed: of the order of the data and of all sampling; the caller's random state stays as it was.
        progress: show a progress bar on a terminal, and print a line per epoch.

    Returns the metrics of each epoch. Modules are in training mode during training, and afterwards in the mode that
    they had. No ``.grad`` stays filled, and Pyro's parameter store stays as it was.

    Raises:
        ContractError: pair or data break the contract.
        DataError: the data are of another kind.
        TypeError, ValueError: another argument is of the wrong kind or out of range.
        NonFiniteLossError: the loss turned NaN or infinite.
        Interrupted: SIGINT or SIGTERM came; with a run folder a checkpoint was written.
        RunFolderError: the folder cannot be written, or holds a run and ``resume`` is not set.
        CheckpointError: the checkpoint to resume is damaged or belongs to another run.

    Example:

        >>> import ppvae
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> model, guide = LinearGaussian(torch.eye(2), torch.zeros(2)), MeanFieldGaussian(ppvae.nn.MLP(2, [], 4))
        >>> result = ppvae.fit(model, guide, ppvae.ELBO(), torch.zeros(64, 2), epochs=2, progress=False)
        >>> list(result.metrics[0])
        ['epoch', 'step', 'seconds', 'loss', 'distortion', 'rate/z']
    """
    plan = plan_of(epochs, batch_size, run_dir, device, seed, progress)
    objective, validation = as_objective(objective), as_validation(validation)
    check_modules(model, guide)
    players = players_of(model, guide, objective, adam() if optimizer is None else check_optimizer(optimizer))
    data = dataset_for(data, "data", model, guide).to(plan.device)
    unseen = held_out(validation, data, model, guide)
    _move(players, plan.device)
    check_num_data(objective, data)
    for checked in (data,) if unseen is None else (data, unseen):
        check_data(model, guide, checked)
    check_objective(objective, model, guide, data)
    batches = Batches(data, plan.batching, plan.seed)
    end, rows = plan.epochs * len(batches), batches.batch_size
    evaluate = PairEvaluation(objective, model, guide, unseen, validation, plan.seed, end, rows)
    settings = partial(_settings, model, guide, objective, train_model, unseen)
    with _training(players, plan), pyro.validation_enabled(False), nullcontext() if train_model else _held(model):
        return _run(players, batches, plan, evaluate, settings, anew=players[1:])


def train(
    players: Sequence[Player],
    data: Dataset | Array,
    *,
    epochs: int,
    batch_size: int | Batching = 128,
    evaluate: Evaluate | None = None,
    run_dir: str | Path | RunDir | None = None,
    device: str | torch.device | Eager = "auto",
    seed: int = 0,
    progress: bool = True,
) -> FitResult:
    """Train any players in place: in each step every player is updated in turn on the same batch.

    It is the loop of :func:`fit` without a pair, a guide or an objective.

    Args:
        players: in the order of their turns, with different names.
        data: a :class:`~ppvae.data.Dataset`, a tensor or a numpy array of shape (N, *event_shape).
        epochs: passes over the data.
        batch_size: rows per step, or :class:`Batching`.
        evaluate: its numbers are added to each epoch's metrics; called in evaluation mode without gradients.
        run_dir: as in :func:`fit`. :func:`load_players` reads the weights back.
        device: as in :func:`fit`; the players' modules are moved there.
        seed: of the order of the data and of all sampling; the caller's random state stays as it was.
        progress: show a progress bar on a terminal, and print a line per epoch.

    Returns the metrics of each epoch: the mean loss of each player under its name, and the parts of a loss that has
    parts under "name/part".

    Raises the errors of :func:`fit`.

    Example:

        >>> from ppvae.engine.player import Player
        >>> x = torch.linspace(-1, 1, 64).unsqueeze(1)
        >>> line = nn.Linear(1, 1)
        >>> def squared_error(turn):
        ...     batch = turn.batches[0].x
        ...     return (line(batch) - 3 * batch).square().mean()
        >>> player = Player("line", line, squared_error, adam(0.1))
        >>> result = train([player], x, epochs=50, batch_size=16, progress=False)
        >>> result.metrics[-1]["line"] < 0.01
        True
    """
    plan = plan_of(epochs, batch_size, run_dir, device, seed, progress)
    evaluate = as_validation(Validation(evaluate=evaluate)).evaluate or dict
    players = check_players(players)
    data = as_dataset(data).to(plan.device)
    _move(players, plan.device)
    with _training(players, plan):
        return _run(players, Batches(data, plan.batching, plan.seed), plan, evaluate)


def _move(players: Sequence[Player], device: torch.device) -> None:
    for player in players:
        player.module.to(device)


@contextmanager
def _training(players: Sequence[Player], plan: Plan) -> Iterator[None]:
    """The global state that training sets and restores afterwards. One thread at a time."""
    modules = [player.module for player in players]
    with (
        isolated(),
        modes_restored(*modules),
        forked_randomness(plan.device, plan.seed),
        denormals_flushed(),
        torch.enable_grad(),
    ):
        for module in modules:
            module.train()
        yield


@contextmanager
def _held(model: nn.Module) -> Iterator[None]:
    """Keep parameters, batch statistics and dropout of a model as they are."""
    with frozen(model), evaluating(model):
        yield


def _run(
    players: Sequence[Player],
    batches: Batches,
    plan: Plan,
    evaluate: Evaluate,
    settings: Callable[[], dict[str, Any]] = dict,
    anew: Sequence[Player] = (),
) -> FitResult:
    """The loop. ``settings`` are compared on resume; otherwise the players in ``anew`` return to their first state."""
    with locked(None if plan.run_dir is None else plan.run_dir.path):
        plan.backend.prepare(players)
        described = {} if plan.run_dir is None else {**settings(), **_describe(batches, plan)}
        folder = RunFolder(plan.run_dir, described, environment(plan.device))
        begin_anew(anew, folder.resumed)
        run = Run(players, batches, plan.backend, folder)
        with (
            stop_on_signals(folder.path is not None) as request,
            ProgressReport(plan.epochs, len(batches), plan.progress) as report,
        ):
            run.train(plan.epochs, _in_evaluation_mode(evaluate, players, plan), report, request)
    return FitResult(run.position.metrics, folder.path)


def _settings(
    model: nn.Module, guide: nn.Module, objective: pyro.infer.ELBO, train_model: bool, validation: Dataset | None
) -> dict[str, Any]:
    """The settings of a pair; layers without parameters are left to the caller."""
    return {
        "model": type(model).__name__,
        "guide": type(guide).__name__,
        "objective": describe(objective),
        "frozen_model": None if train_model else digest_of_module(model),
        "validation": None if validation is None else describe_data(validation),
    }


def _describe(batches: Batches, plan: Plan) -> dict[str, Any]:
    return {
        **describe_data(batches.data),
        "batch_size": batches.batch_size,
        "labelled_per_step": batches.labelled_per_step,
        "steps_per_epoch": len(batches),
        "players": describe_players(plan.backend.descents, len(batches)),
        "seed": plan.seed,
    }


def _in_evaluation_mode(evaluate: Evaluate, players: Sequence[Player], plan: Plan) -> Evaluate:
    def evaluated() -> Mapping[str, float]:
        modules = [player.module for player in players]
        with torch.no_grad(), evaluating(*modules), forked_randomness(plan.device, plan.seed):
            return evaluate()

    return evaluated
