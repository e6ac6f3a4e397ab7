"""The preamble of every evaluator: check once, move to the device, evaluation mode, own random state, own store."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyro
import torch

from ppvae.engine import checks
from ppvae.engine.batch import Array, Batch, HasBatch, as_batch
from ppvae.engine.contract import check_batch
from ppvae.engine.isolation import evaluation_mode, forked_randomness
from ppvae.engine.pair import Pair, first_parameter
from ppvae.engine.tracing import OBSERVED, arguments, sample_nodes, trace
from ppvae.errors import ContractError

CHECKED_ROWS = 4  # of each kind, labelled and unlabelled, through the whole pair


@contextmanager
def evaluation(
    model: Any,
    guide: Any,
    data: Batch | HasBatch | Array,
    y: Array | None = None,
    given: Mapping[str, Array] | None = None,
    seed: int = 0,
) -> Iterator[tuple[Pair, Batch]]:
    """Check a pair and its data, and run what stands inside as an evaluation.

    Args:
        model: the generative model; None where the guide alone is evaluated.
        guide: its guide; None where the model alone is evaluated.
        data: a ``Dataset``, a tensor or a numpy array. Dynamically binarized data are drawn by ``seed``.
        y: labels, -1 where unknown.
        given: conditions.
        seed: of all random numbers inside; the caller's own random state is left alone.

    Yields the pair and all of the data on the pair's device. Inside, modules are in evaluation mode, there is no
    gradient, Pyro's parameter store is empty, and Pyro validates nothing, since the pair was checked.

    Raises:
        ContractError: the pair or the data break the contract.
    """
    modules = [module for module in (model, guide) if module is not None]
    checks.check_modules(*modules)
    parameter = first_parameter(*modules)
    device = torch.device("cpu") if parameter is None else parameter.device
    with forked_randomness(device, seed):
        batch = as_batch(data, y, given, None if parameter is None else parameter.dtype)
    batch = batch if parameter is None else batch.to(device)
    with forked_randomness(device):
        check_all(model, guide, batch)
    with evaluation_mode(*modules, device=device, seed=seed), pyro.validation_enabled(False):
        yield Pair(model, guide), batch


def check_all(model: Any, guide: Any, batch: Batch) -> None:
    """Check a pair, or one of the two, on a few rows of each kind, and every row against the likelihood."""
    functions = [function for function in (model, guide) if function is not None]
    checks.check_conditions(functions, batch)
    few = batch.rows(_few_of_each_kind(batch))
    if model is not None and guide is not None:
        check_batch(model, guide, few)
    if model is None:
        return
    checks.check_label_range(model, batch)
    likelihood = _likelihood(model, checks.kinds_of_rows(few)[0].rows(slice(0, 1)))
    checks.check_event_shape(likelihood, batch.x)
    checks.check_support(likelihood, batch.x)


def _few_of_each_kind(batch: Batch) -> torch.Tensor:
    """Indices of the first rows of each kind."""
    known = torch.zeros(len(batch), dtype=torch.bool) if batch.known is None else batch.known.cpu()
    rows = [kind.nonzero()[:CHECKED_ROWS, 0] for kind in (~known, known)]
    return torch.cat(rows).to(batch.x.device)


def _likelihood(model: Any, one: Batch) -> Any:
    """p(x | z) of one datum, at a draw of the prior."""
    with evaluation_mode(model, device=one.x.device):
        try:
            nodes = sample_nodes(trace(model, arguments(model, one), 1))
        except Exception as error:
            labels = "without labels" if one.label is None else "with labels"
            raise ContractError(
                f"the model failed on x of shape {tuple(one.x.shape)} {labels}: {type(error).__name__}: {error}. A "
                "model that needs labels or conditions must get them"
            ) from error
    if OBSERVED not in nodes:
        raise ContractError(f'expected the model to observe site "{OBSERVED}", got sites {sorted(nodes)}')
    return nodes[OBSERVED]["fn"]
