"""Before the first step: what is checked, and what a run must share with the one that it takes up."""

import hashlib

import torch
from torch import Tensor

from ppvae.checks import check_label_range, check_support
from ppvae.contract import check_pair
from ppvae.data import Dataset
from ppvae.isolation import untouched
from ppvae.tracing import OBSERVED, distribution_at
from ppvae.training.run import Run

ROWS = 10_000  # checked at once


def check_data(model, guide, data: Dataset) -> None:
    """Check the pair on a few rows of each kind, and every row against the likelihood and the model's classes."""
    device = data.x.device
    few = torch.cat([rows[:4] for rows in data.rows_by_label()]).to(device)
    with untouched(model, guide, device=device, seed=0):
        x, y = data.rows(few), data.labels(few)
        check_label_range(model, x, data.y)
        check_pair(model, guide, x, y)
        first = None if y is None or y[0] < 0 else y[:1]
        likelihood = distribution_at(model, OBSERVED, x[:1], first)
        if data.binarization != "dynamic":
            for start in range(0, len(data), ROWS):
                check_support(likelihood, data.grey(slice(start, start + ROWS)), first_row=start)


def describe_run(run: Run, train_model: bool) -> dict:
    """What is compared before a run is taken up; layers without parameters are the caller's to keep."""
    data = run.batches.data
    return {
        "model": type(run.model).__name__,
        "guide": type(run.guide).__name__,
        "objective": describe(run.objective),
        "optimizer": describe_optimizer(run.optimizer),
        "schedule": None if run.schedule is None else [run.schedule(epoch * len(run.batches)) for epoch in (0, 1, 5)],
        "data": data.name,
        "rows": len(data),
        "x": _digest(data.x),
        "labels": None if data.y is None else _digest(data.y),
        "known_labels": len(data.rows_by_label()[0]),
        "binarization": data.binarization,
        "batch_size": run.batches.batch_size,
        "labelled_per_step": run.batches.labelled_per_step,
        "train_model": train_model,
        "frozen_model": None if train_model else _digest_of_module(run.model),
        "seed": run.batches.seed,
    }


def describe(objective) -> dict:
    """The class of an objective and its settings, nested objectives' too."""
    settings = {name: value for name, value in vars(objective).items() if not name.startswith("_")}
    plain = {n: v for n, v in settings.items() if isinstance(v, (bool, int, float, str)) and n not in _PYROS_OWN}
    nested = {n: describe(v) for n, v in settings.items() if hasattr(v, "per_datum")}
    return {"class": type(objective).__name__, **plain, **nested}


_PYROS_OWN = {"max_plate_nesting", "ignore_jit_warnings", "strict_enumeration_warning"}


def describe_optimizer(optimizer: torch.optim.Optimizer) -> dict:
    """The class of an optimizer and its settings."""
    settings = {n: list(v) if isinstance(v, tuple) else v for n, v in optimizer.defaults.items()}
    plain = {n: v for n, v in settings.items() if isinstance(v, (bool, int, float, str, list))}
    return {"class": type(optimizer).__name__, **plain}


def _digest_of_module(module: torch.nn.Module) -> str:
    digests = "".join(_digest(tensor) for tensor in module.state_dict().values())
    return hashlib.sha256(digests.encode()).hexdigest()[:16]


def _digest(tensor: Tensor) -> str:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return hashlib.sha256(flat.view(torch.uint8).numpy()).hexdigest()[:16]
