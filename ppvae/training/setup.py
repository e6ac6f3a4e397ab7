"""Before the first step: what is checked, and what a run must share with the one that it takes up."""

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, is_dataclass

import torch
from torch import Tensor

from ppvae.data import Dataset, LazyImages
from ppvae.engine.checks import check_label_range, check_support
from ppvae.engine.contract import check_pair
from ppvae.engine.isolation import evaluation_mode
from ppvae.engine.tracing import OBSERVED, distribution_at
from ppvae.errors import ContractError
from ppvae.objectives import Adversary, Kernel, Objective, Regulariser
from ppvae.training.run import Run

ROWS = 10_000  # at most, of images that are made or read when they are indexed
AT_ONCE = 2**23  # numbers checked at once, 32 MB as float32


def check_data(model, guide, data: Dataset) -> None:
    """Check the pair on a few rows of each kind, and every row against the likelihood and the model's classes; of
    images made or read when they are indexed, rows spread over the whole."""
    device = data.x.device
    few = torch.cat([rows[:4] for rows in data.rows_by_label()]).to(device)
    with evaluation_mode(model, guide, device=device, seed=0):
        x, y = data.rows(few), data.labels(few)
        check_label_range(model, x, data.y)
        check_pair(model, guide, x, y)
        first = None if y is None or y[0] < 0 else y[:1]
        likelihood = distribution_at(model, OBSERVED, x[:1], first)
        if data.binarization != "dynamic":
            for start, x in _blocks(data):
                check_support(likelihood, x, first_row=start)


def check_num_data(objective, data: Dataset) -> None:
    """Raise ContractError for a term that counts on another number of rows than the training set has."""
    for term in getattr(objective, "regularisers", ()):
        if term.num_data not in (None, len(data)):
            raise ContractError(
                f"expected {type(term).__name__} with num_data={len(data)}, the rows of the training set, got "
                f"{term.num_data}"
            )


def _blocks(data: Dataset) -> Iterator[tuple[int, Tensor]]:
    """The first row and the grey values of each of several parts."""
    every = _spread(data.x).step if isinstance(data.x, LazyImages) else 1
    step = every * max(1, AT_ONCE // max(1, data.x.shape[1:].numel()))
    for start in range(0, len(data), step):
        yield start, data.grey(slice(start, start + step, every))


def _spread(x: LazyImages) -> slice:
    """At most ``ROWS`` rows."""
    return slice(None, None, -(-len(x) // ROWS))


def describe_run(run: Run, train_model: bool) -> dict:
    """What is compared before a run is taken up; layers without parameters are the caller's to keep."""
    data = run.batches.data
    return {
        "model": type(run.model).__name__,
        "guide": type(run.guide).__name__,
        "objective": describe(run.objective),
        "optimizer": describe_optimizer(run.optimizer),
        "adversaries": [describe_optimizer(optimizer) for optimizer in run.trainer.adversary_optimizers],
        "schedule": None if run.schedule is None else [run.schedule(epoch * len(run.batches)) for epoch in (0, 1, 5)],
        "data": data.name,
        "rows": len(data),
        "x": _digest(data.x),
        "labels": None if data.y is None else _digest(data.y),
        "known_labels": len(data.rows_by_label()[0]),
        "binarization": data.binarization,
        "batch_size": run.batches.batch_size,
        "steps_per_epoch": len(run.batches),
        "labelled_per_step": run.batches.labelled_per_step,
        "train_model": train_model,
        "frozen_model": None if train_model else _digest_of_module(run.model),
        "seed": run.batches.seed,
    }


def describe(objective) -> dict:
    """The class of an objective and its settings, those of its parts too; a schedule by some of its values."""
    settings = {n: v for n, v in vars(objective).items() if not n.startswith("_") and n not in _PYROS_OWN}
    described = {name: _setting(value) for name, value in settings.items()}
    return {"class": type(objective).__name__, **{n: v for n, v in described.items() if v is not None}}


def _setting(value) -> bool | int | float | str | list | dict | None:
    if isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_setting(part) for part in value]
    if isinstance(value, Adversary):
        return type(value).__name__  # its weights are in the checkpoint
    if isinstance(value, (Objective, Regulariser, Kernel)):
        return describe(value)
    if is_dataclass(value):  # a schedule such as Ramp
        return {"class": type(value).__name__, **asdict(value)}
    return [float(value(step)) for step in SOME_STEPS] if callable(value) else None


SOME_STEPS = (0, 1, 10, 100, 1_000, 10_000, 100_000, 1_000_000)
_PYROS_OWN = {"max_plate_nesting", "ignore_jit_warnings", "strict_enumeration_warning"}


def describe_optimizer(optimizer: torch.optim.Optimizer) -> dict:
    """The class of an optimizer and its settings."""
    settings = {n: list(v) if isinstance(v, tuple) else v for n, v in optimizer.defaults.items()}
    plain = {n: v for n, v in settings.items() if isinstance(v, (bool, int, float, str, list))}
    return {"class": type(optimizer).__name__, **plain}


def _digest_of_module(module: torch.nn.Module) -> str:
    digests = "".join(_digest(tensor) for tensor in module.state_dict().values())
    return hashlib.sha256(digests.encode()).hexdigest()[:16]


def _digest(x: Tensor | LazyImages) -> str:
    """Of images made or read when they are indexed, rows spread over the whole are taken."""
    tensor = x[_spread(x)] if isinstance(x, LazyImages) else x
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return hashlib.sha256(flat.view(torch.uint8).numpy()).hexdigest()[:16]
