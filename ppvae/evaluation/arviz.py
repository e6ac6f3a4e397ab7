"""Draws of a pair for ArviZ, 0.23 or 1.x."""

from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppvae.engine.batch import Array, Batch, HasBatch
from ppvae.engine.data_checks import check_weights
from ppvae.engine.evaluation import evaluation
from ppvae.engine.pair import Pair
from ppvae.engine.tracing import LABEL, OBSERVED
from ppvae.evaluation.progress import blocks
from ppvae.evaluation.requirements import require_continuous, require_known
from ppvae.objectives.base import require_count

Groups = dict[str, dict[str, Tensor]]


def inference_data(
    model: Any,
    guide: Any,
    data: Batch | HasBatch | Array,
    y: Array | None = None,
    *,
    draws: int = 500,
    candidates: int = 10,
    chunk: int = 10_000,
    seed: int = 0,
    **given: Array,
) -> Any:
    """Posterior, log likelihood, prior, observed data and conditions of a pair without discrete sites, for ArviZ.

    The posterior draws are resampled from ``candidates * draws`` draws of the guide, with probability proportional to
    their weights p(x, z) / q(z | x): better than the guide's own draws, but not reliable where k-hat is bad.

    Args:
        model: generative model.
        guide: its guide.
        data: a ``Dataset``, a tensor or a numpy array of shape (B, *event_shape).
        y: labels, all known, shape (B,); or None.
        draws: draws of each group, of one chain.
        candidates: draws of the guide for each that is kept.
        chunk: pairs of a draw and a datum that are evaluated at once; at least one datum is.
        seed: of the draws.
        given: conditions of B rows each.

    Returns InferenceData with ArviZ 0.23, a DataTree with ArviZ 1.x; each variable has dimensions (chain, draw,
    datum, ...).

    Raises:
        ContractError: the pair or the data break the contract, a site is discrete, q is not a density over the prior's
            whole space, or the weights of a datum are not finite.

    Example:

        >>> import ppvae
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> model, guide = LinearGaussian(torch.eye(2), torch.zeros(2)), MeanFieldGaussian(ppvae.nn.MLP(2, [], 4))
        >>> found = inference_data(model, guide, torch.zeros(3, 2), draws=20)
        >>> found.posterior["z"].shape  # (chain, draw, datum, element)
        (1, 20, 3, 2)
    """
    draws, candidates = require_count("draws", draws), require_count("candidates", candidates)
    rows = max(1, require_count("chunk", chunk) // (draws * candidates))
    with evaluation(model, guide, data, y, given, seed=seed) as (pair, batch):
        require_known(batch)
        require_continuous(pair.prior(batch.rows(slice(0, 1)), 1))
        parts = [_groups_of(pair, batch, block, draws, candidates) for block in blocks(len(batch), rows)]
    groups = {group: _joined([part[group] for part in parts]) for group in parts[0]}
    groups["observed_data"] = {OBSERVED: batch.x.cpu().numpy()}
    constants = dict(batch.given) if batch.y is None else {LABEL: batch.y, **batch.given}
    if constants:
        groups["constant_data"] = {name: column.cpu().numpy() for name, column in constants.items()}
    return _from_dict(groups)


def _groups_of(pair: Pair, batch: Batch, block: slice, draws: int, candidates: int) -> Groups:
    """Some of the data by group and variable, each (draws, B, ...)."""
    part = batch.rows(block)
    particles = pair.draw(part, draws * candidates)
    check_weights(particles.log_weight, block.start)
    chosen = torch.multinomial(particles.log_weight.softmax(0).T, draws, replacement=True).T  # (draws, B)
    rows = torch.arange(len(part), device=part.x.device)
    values = {name: site.value[chosen, rows] for name, site in particles.guide.items()}
    likelihood = pair.model_at(part, values, draws)[OBSERVED].log_prob
    prior = pair.prior(part, draws)
    return {
        "posterior": values,
        "log_likelihood": {OBSERVED: likelihood},
        "prior": {name: prior[name].value.expand(draws, *values[name].shape[1:]) for name in values},
    }


def _joined(parts: list[dict[str, Tensor]]) -> dict[str, np.ndarray]:
    """Blocks of rows put together, as arrays (chain, draw, datum, ...)."""
    return {name: torch.cat([part[name] for part in parts], 1).unsqueeze(0).cpu().numpy() for name in parts[0]}


def _from_dict(groups: dict[str, Any]) -> Any:
    import arviz

    by_keyword = "posterior" in signature(arviz.from_dict).parameters  # ArviZ 0.23
    return arviz.from_dict(**groups) if by_keyword else arviz.from_dict(groups)
