"""What fit checks of its pair and its data before the first step."""

import pyro
from pyro.infer import Trace_MMD
from torch import nn

from ppvae.data import Dataset
from ppvae.engine.contract import check_batch
from ppvae.engine.isolation import evaluation_mode
from ppvae.engine.pair import Pair
from ppvae.engine.requirements import require_likelihood
from ppvae.engine.tracing import OBSERVED, distribution_at
from ppvae.errors import ContractError
from ppvae.evaluation.rows import check_rows
from ppvae.objectives.base import Objective


def check_data(model: nn.Module, guide: nn.Module, data: Dataset) -> None:
    """Check the pair on a few rows of each kind, and every row against the likelihood and the model's classes.

    Of images that are made or read when they are indexed, rows spread over the whole set are checked.

    Raises:
        ContractError: pair or data break the contract.

    Example:

        >>> import torch
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> model, guide = LinearGaussian(torch.eye(2), torch.zeros(2)), MeanFieldGaussian(nn.Linear(2, 4))
        >>> check_data(model, guide, Dataset(torch.zeros(8, 2)))
    """
    with evaluation_mode(model, guide, device=data.x.device, seed=0):
        check_rows(model, data)
        check_batch(model, guide, data.batch(data.rows_to_check()))


def check_objective(objective: object, model: nn.Module, guide: nn.Module, data: Dataset) -> None:
    """Run an objective of ppvae once on a few rows of each kind: labelled, unlabelled, with missing elements.

    Its checks may read numbers from the device here, and not in a step. Pyro's estimators are not run; all but
    ``Trace_MMD`` weigh q, and cannot take a point mass.

    Raises:
        ContractError: the pair does not give what the objective reads.

    Example:

        >>> import ppvae, torch
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> model, guide = LinearGaussian(torch.eye(2), torch.zeros(2)), MeanFieldGaussian(nn.Linear(2, 4))
        >>> check_objective(ppvae.ELBO(), model, guide, Dataset(torch.zeros(8, 2)))
    """
    players = objective.players if isinstance(objective, Objective) else ()
    modules = [model, guide, *(player.module for player in players)]
    with evaluation_mode(*modules, device=data.x.device, seed=0), pyro.validation_enabled(False):
        for batch in data.batch(data.rows_to_check()).kinds():
            if isinstance(objective, Objective):
                objective.parts(objective.particles(Pair(model, guide), batch, step=0))
                continue
            require_likelihood(model, distribution_at(model, OBSERVED, batch))
            if not isinstance(objective, Trace_MMD):
                Pair(model, guide).draw(batch).require_weights()


def check_num_data(objective: object, data: Dataset) -> None:
    """Raise ContractError for a term that depends on another number of rows than the training set has.

    Example:

        >>> import ppvae, torch
        >>> check_num_data(ppvae.ELBO(), Dataset(torch.zeros(8, 2)))
    """
    for term in getattr(objective, "regularisers", ()):
        if term.num_data not in (None, len(data)):
            raise ContractError(
                f"expected {type(term).__name__} with num_data={len(data)}, the rows of the training set, got "
                f"{term.num_data}"
            )
