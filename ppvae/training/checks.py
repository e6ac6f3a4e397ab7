"""What fit checks of its pair and its data before the first step."""

from collections.abc import Iterator

import pyro
import torch
from torch import Tensor, nn

from ppvae.data import Dataset, LazyImages
from ppvae.engine.batch import Batch
from ppvae.engine.contract import check_batch
from ppvae.engine.data_checks import check_label_range, check_support
from ppvae.engine.isolation import evaluation_mode
from ppvae.engine.pair import Pair
from ppvae.engine.requirements import require_likelihood
from ppvae.engine.tracing import OBSERVED, distribution_at
from ppvae.errors import ContractError
from ppvae.objectives.base import Objective
from ppvae.training.describe import spread

AT_ONCE = 2**23  # numbers checked at once, 32 MB as float32
FEW = 4  # rows of each kind on which the pair is run


def check_data(model: nn.Module, guide: nn.Module, data: Dataset) -> None:
    """Check the pair on a few rows of each kind, and every row against the likelihood and the model's classes.

    Of images that are made or read when they are indexed, rows spread over the whole set are checked.

    Raises:
        ContractError: pair or data break the contract.

    Example:

        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> model, guide = LinearGaussian(torch.eye(2), torch.zeros(2)), MeanFieldGaussian(nn.Linear(2, 4))
        >>> check_data(model, guide, Dataset(torch.zeros(8, 2)))
    """
    few = torch.cat([rows[:FEW] for rows in data.rows_by_label()]).to(data.x.device)
    with evaluation_mode(model, guide, device=data.x.device, seed=0):
        batch = data.batch(few)
        check_label_range(model, Batch(batch.x, data.y, batch.given))
        check_batch(model, guide, batch)
        likelihood = distribution_at(model, OBSERVED, batch.kinds()[0].rows(slice(0, 1)))
        if data.binarization != "dynamic" or data.has_missing:
            for start, x in _blocks(data):
                check_support(likelihood, x, first_row=start)


def check_objective(objective: object, model: nn.Module, guide: nn.Module, data: Dataset) -> None:
    """Run an objective of ppvae once on a few rows of each kind.

    Its checks may read numbers from the device here, and not in a step.

    Raises:
        ContractError: the pair does not give what the objective reads.

    Example:

        >>> import ppvae
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> model, guide = LinearGaussian(torch.eye(2), torch.zeros(2)), MeanFieldGaussian(nn.Linear(2, 4))
        >>> check_objective(ppvae.ELBO(), model, guide, Dataset(torch.zeros(8, 2)))
    """
    few = torch.cat([rows[:FEW] for rows in data.rows_by_label()]).to(data.x.device)
    if not isinstance(objective, Objective):
        with evaluation_mode(model, device=data.x.device, seed=0):
            require_likelihood(model, distribution_at(model, OBSERVED, data.batch(few).kinds()[0]))
        return
    modules = [model, guide, *(player.module for player in objective.players)]
    with evaluation_mode(*modules, device=data.x.device, seed=0), pyro.validation_enabled(False):
        for batch in data.batch(few).kinds():
            objective.parts(objective.particles(Pair(model, guide), batch, step=0))


def check_num_data(objective: object, data: Dataset) -> None:
    """Raise ContractError for a term that depends on another number of rows than the training set has.

    Example:

        >>> import ppvae
        >>> check_num_data(ppvae.ELBO(), Dataset(torch.zeros(8, 2)))
    """
    for term in getattr(objective, "regularisers", ()):
        if term.num_data not in (None, len(data)):
            raise ContractError(
                f"expected {type(term).__name__} with num_data={len(data)}, the rows of the training set, got "
                f"{term.num_data}"
            )


def _blocks(data: Dataset) -> Iterator[tuple[int, Tensor]]:
    """The number of the first row and the grey values of each of several parts."""
    every = spread(data.x).step if isinstance(data.x, LazyImages) else 1
    step = every * max(1, AT_ONCE // max(1, data.x.shape[1:].numel()))
    for start in range(0, len(data), step):
        yield start, data.grey(slice(start, start + step, every))
