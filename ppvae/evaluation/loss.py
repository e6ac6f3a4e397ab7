"""An objective's loss, and its parts, over a whole data set."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyro
import pyro.infer
import torch
from torch import Tensor

from ppvae.data import Dataset, as_dataset
from ppvae.engine.batch import Array, Batch
from ppvae.engine.checks import check_modules
from ppvae.engine.columns import as_column
from ppvae.engine.evaluation import check_all
from ppvae.engine.isolation import evaluation_mode
from ppvae.engine.pair import Pair, first_parameter
from ppvae.engine.tracing import arguments
from ppvae.errors import ContractError, DataError, require_count
from ppvae.evaluation.rows import check_rows
from ppvae.objectives.base import Objective, Parts

AT_ONCE = 500  # rows
LOSS = "loss"  # the only part of an estimator of Pyro's


def evaluate_loss(
    objective: pyro.infer.ELBO,
    model: Any,
    guide: Any,
    data: Dataset | Array,
    *,
    batch_size: int = AT_ONCE,
    seed: int = 0,
    step: int | None = None,
) -> float:
    """Mean loss per datum, in nats, in evaluation mode; of a bound, minus the bound.

    Args:
        objective: an objective of ppvae or a ``pyro.infer.ELBO``.
        model: generative model.
        guide: its guide.
        data: a Dataset, a tensor or a numpy array, on any device. Every row counts once; labels are used where they are
            known.
        batch_size: rows evaluated at once, at most; a regulariser that is a statistic of the batch depends on it.
        seed: of binarization and draws; the caller's random state stays as it was.
        step: of the training, for an objective of ppvae with schedules.

    Example:

        >>> import torch, ppvae
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> model, guide = LinearGaussian(torch.eye(2), torch.zeros(2)), MeanFieldGaussian(ppvae.nn.MLP(2, [], 4))
        >>> evaluate_loss(ppvae.ELBO(), model, guide, torch.zeros(10, 2)) > 0
        True
    """
    return sum(
        evaluate_parts(objective, model, guide, data, batch_size=batch_size, seed=seed, step=step).values(), start=0.0
    )


def evaluate_parts(
    objective: pyro.infer.ELBO,
    model: Any,
    guide: Any,
    data: Dataset | Array,
    *,
    batch_size: int = AT_ONCE,
    seed: int = 0,
    step: int | None = None,
) -> dict[str, float]:
    """The named parts of :func:`evaluate_loss`, means per datum in nats, which add up to the loss.

    An estimator of Pyro's has the one part "loss". Arguments as of :func:`evaluate_loss`.

    Example:

        >>> import torch, ppvae
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> model, guide = LinearGaussian(torch.eye(2), torch.zeros(2)), MeanFieldGaussian(ppvae.nn.MLP(2, [], 4))
        >>> sorted(evaluate_parts(ppvae.ELBO(), model, guide, torch.zeros(10, 2)))
        ['distortion', 'rate/z']
    """
    if isinstance(objective, type) or not isinstance(objective, pyro.infer.ELBO):
        got = f"the class {objective.__name__} itself" if isinstance(objective, type) else type(objective).__name__
        raise TypeError(f"expected an objective such as ppvae.ELBO(), got {got}")
    batch_size = require_count("batch_size", batch_size)
    check_modules(model, guide)
    data, parameter = dataset_for(data, "data", model, guide), first_parameter(model, guide)
    data = data if parameter is None else data.to(parameter.device)
    with evaluation_mode(model, guide, device=data.x.device, seed=seed):
        check_rows(model, data)
        stock = not isinstance(objective, Objective)  # one of ppvae's raises where it reads p(x | z)
        check_all(model, guide, data.batch(data.rows_to_check()), reads_likelihood=stock)
    return parts_over(objective, model, guide, data, batch_size, seed, step)


def _require_numbers(parts: dict[str, float]) -> None:
    if any(math.isnan(part) for part in parts.values()):
        raise ContractError(
            f"expected a loss that is a number, got {parts}; look for NaN in the data (missing elements need a "
            "likelihood with missing=True and ppvae.nn.FillMissing) and in the pair's parameters"
        )


def parts_over(
    objective: pyro.infer.ELBO, model: Any, guide: Any, data: Dataset, batch_size: int, seed: int, step: int | None
) -> dict[str, float]:
    """:func:`evaluate_parts` of data on the pair's device, which were checked.

    Example:

        >>> import ppvae
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> model, guide = LinearGaussian(torch.eye(2), torch.zeros(2)), MeanFieldGaussian(torch.nn.Linear(2, 4))
        >>> data = Dataset(torch.zeros(8, 2))
        >>> sorted(parts_over(ppvae.ELBO(), model, guide, data, batch_size=4, seed=0, step=None))
        ['distortion', 'rate/z']
    """
    owned = [player.module for player in getattr(objective, "players", ())]
    totals: dict[str, Tensor] = {}
    with (
        evaluation_mode(model, guide, *owned, device=data.x.device, seed=seed),
        pyro.validation_enabled(False),
    ):
        for batch in _batches(data, batch_size):
            for name, part in _sums(objective, model, guide, batch, step).items():
                totals[name] = totals.get(name, 0.0) + part.double()
    parts = {name: total.item() / len(data) for name, total in totals.items()}
    _require_numbers(parts)
    return parts


def dataset_for(data: Any, name: str, *modules: Any) -> Dataset:
    """Data as a Dataset, a floating numpy array in the floating type of the modules.

    Raises:
        DataError: the data are of another kind; the message calls them ``name``.

    Example:

        >>> dataset_for(np.zeros((3, 2)), "data", torch.nn.Linear(2, 1).double()).x.dtype
        torch.float64
    """
    parameter = first_parameter(*modules)
    if isinstance(data, np.ndarray) and data.dtype.kind == "f" and parameter is not None:
        data = as_column(data, name, parameter.dtype, DataError)
    return as_dataset(data, name)


def _batches(data: Dataset, batch_size: int) -> Iterator[Batch]:
    """The labelled and then the unlabelled rows, in parts of equal size, so that none is short."""
    for labelled, rows in zip((True, False), data.rows_by_label(), strict=True):
        for index in rows.tensor_split(-(-len(rows) // batch_size)) if len(rows) else ():
            batch = data.batch(index.to(data.x.device), all_known=labelled)
            yield batch if labelled else Batch(batch.x, None, batch.given)


def _sums(objective: Any, model: Any, guide: Any, batch: Batch, step: int | None) -> Parts:
    """The parts summed over a batch."""
    if isinstance(objective, Objective):
        parts = objective.parts(objective.particles(Pair(model, guide), batch, step))
        return {name: part.sum() if part.dim() else part * len(batch) for name, part in parts.items()}
    return {LOSS: torch.as_tensor(call_estimator(objective.loss, model, guide, batch))}


def call_estimator(method: Any, model: Any, guide: Any, batch: Batch) -> Any:
    """What a method of one of Pyro's estimators gives for a batch: known labels by place, conditions by name.

    Example:

        >>> from ppvae.engine.batch import as_batch
        >>> call_estimator(lambda model, guide, x: len(x), None, None, as_batch(torch.zeros(3, 2)))
        3
    """
    given = {name: value for function in (model, guide) for name, value in arguments(function, batch)[1].items()}
    labels = () if batch.label is None else (batch.label,)
    return method(model, guide, batch.x, *labels, **given)
