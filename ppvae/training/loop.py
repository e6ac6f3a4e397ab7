"""The training loop: the only one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import pyro
import torch
from torch import Tensor, nn

from ppvae.data import Dataset
from ppvae.engine.checks import check_modules
from ppvae.engine.isolation import denormals_flushed, evaluating, forked_randomness, frozen, isolated, modes_restored
from ppvae.evaluation.loss import evaluate_loss
from ppvae.objectives import Objective
from ppvae.training.batches import Batches
from ppvae.training.device import resolve_device
from ppvae.training.progress import ProgressReport
from ppvae.training.run import Run
from ppvae.training.run_folder import RunFolder, locked
from ppvae.training.setup import check_data, check_num_data, describe_run
from ppvae.training.signals import stop_on_signals
from ppvae.training.step import adversaries


def adam(lr: float = 1e-3, **options) -> Callable[[list[nn.Parameter]], torch.optim.Optimizer]:
    """Constructor of Adam with its update fused into one kernel."""
    return lambda parameters: torch.optim.Adam(parameters, lr=lr, fused=True, **options)


@dataclass
class FitResult:
    """What :func:`fit` gives back; the pair itself is trained in place.

    Attributes:
        metrics: one dictionary an epoch: epoch, step, seconds, loss, validation_loss and what ``evaluate`` gave.
            Losses are means per datum, in nats.
        run_dir: the run folder, if there is one.
    """

    metrics: list[dict] = field(default_factory=list)
    run_dir: Path | None = None


def fit(
    model: nn.Module,
    guide: nn.Module,
    objective,
    data: Dataset | Tensor,
    *,
    epochs: int,
    batch_size: int = 128,
    steps_per_epoch: int | None = None,
    labelled_per_step: int = 100,
    optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer] | None = None,
    schedule: Callable[[int], float] | None = None,
    train_model: bool = True,
    validation: Dataset | None = None,
    evaluate: Callable[[], dict[str, float]] | None = None,
    run_dir: str | Path | None = None,
    resume: bool = False,
    device: str | torch.device = "auto",
    seed: int = 0,
    progress: bool = True,
) -> FitResult:
    """Train a pair.

    Args:
        model: generative model, called ``model(x, y)``.
        guide: guide, called ``guide(x, y)``.
        objective: an objective of ppvae, or any ``pyro.infer.ELBO`` such as ``Trace_ELBO()``. What it trains against
            the pair (a critic, a multiplier) is trained with it, in place too, and kept in the checkpoints.
        data: a :class:`~ppvae.data.Dataset`, or a floating tensor of shape (N, *event_shape).
        epochs: passes over the data (over its unlabelled rows, where it is partially labelled).
        batch_size: rows a step (unlabelled rows, where the data is partially labelled).
        steps_per_epoch: steps after which the loss is validated, a checkpoint written and the order drawn anew; None
            for a pass over the data, which epochs are else. Rows that an epoch does not reach are left to chance.
        labelled_per_step: labelled rows beside the unlabelled ones in each step, at most.
        optimizer: parameters -> torch optimizer; ``adam(1e-3)`` if None.
        schedule: step -> factor on the learning rate of the pair; what the objective trains against it keeps its own.
        train_model: False freezes the model (parameters, batch statistics, dropout) and trains the guide alone.
        validation: data on which the loss is taken after each epoch, in evaluation mode with fixed random
            numbers and the objective's schedules as at the end; ``best.safetensors`` is the epoch where it was lowest
            (with a critic or a multiplier in it, losses of two epochs are not measured alike).
        evaluate: called after each epoch, in evaluation mode without gradients; its numbers join the metrics.
        run_dir: folder for configuration, metrics and checkpoints; None writes nothing.
        resume: go on from the folder's last checkpoint, to the same numbers as an uninterrupted run (on one
            machine; on CUDA as far as its kernels repeat themselves).
        device: "auto" (CUDA where there is one), "cpu", "cuda", "cuda:1".
        seed: of the order of the data and of all sampling; the caller's own random state is left alone.
        progress: show a progress bar.

    Raises ContractError where pair or data break the contract, NonFiniteLossError where the loss turns NaN or
    infinite, Interrupted on SIGINT or SIGTERM (with a run folder, after a checkpoint was written), and
    CheckpointError where a checkpoint is damaged or of another run. Modules are put in training mode, and back after.
    """
    if epochs < 1:
        raise ValueError(f"expected at least 1 epoch, got {epochs}")
    check_modules(model, guide)
    device = resolve_device(device)
    data, validation = _prepared(data, device), None if validation is None else _prepared(validation, device)
    for module in (model, guide, *adversaries(objective)):
        module.to(device)
    check_data(model, guide, data)
    check_num_data(objective, data)
    if validation is not None:
        check_data(model, guide, validation)
    batches = Batches(data, batch_size, labelled_per_step, seed, steps_per_epoch)
    with locked(run_dir), _training(model, guide, adversaries(objective), train_model, device, seed):
        run = Run(model, guide, objective, batches, optimizer or adam(), schedule)
        run.begin(RunFolder(run_dir, resume, {} if run_dir is None else describe_run(run, train_model)))
        with (
            stop_on_signals(run.folder.path is not None) as request,
            ProgressReport(epochs, len(batches), progress) as report,
        ):
            while run.epoch < epochs:
                run.train_epoch(request, report)
                run.finish_epoch(lambda: _evaluate(run, validation, evaluate, epochs, seed), request, report)
    return FitResult(run.metrics, run.folder.path)


def _prepared(data: Dataset | Tensor, device: torch.device) -> Dataset:
    return (data if isinstance(data, Dataset) else Dataset(data)).to(device)


@contextmanager
def _training(model, guide, others: tuple[nn.Module, ...], train_model: bool, device, seed: int) -> Iterator[None]:
    """Everything that training needs and that is put back after it."""
    with (
        modes_restored(model, guide, *others),
        forked_randomness(device, seed),
        pyro.validation_enabled(False),  # the pair was checked; Pyro's own checks wait for the device
        isolated(model, guide),
        nullcontext() if train_model else frozen(model),
        denormals_flushed(),
    ):
        model.train(train_model)  # a frozen model keeps its batch statistics too
        for module in (guide, *others):
            module.train()
        yield


def _evaluate(run: Run, validation: Dataset | None, evaluate, epochs: int, seed: int) -> dict[str, float]:
    numbers: dict[str, float] = {}
    with torch.no_grad(), evaluating(*run.modules.values()), forked_randomness(run.device, seed):
        if validation is not None:
            options = {"seed": seed}
            if isinstance(run.objective, Objective):  # the loss that training ends with, alike for every epoch
                options["step"] = epochs * len(run.batches)
                options |= {"batch_size": run.batches.batch_size} if run.objective.over_batch else {}
            numbers["validation_loss"] = evaluate_loss(run.objective, run.model, run.guide, validation, **options)
        if evaluate is not None:
            numbers.update({name: float(value) for name, value in evaluate().items()})
    return numbers
