"""Handing a pair over to ArviZ, 0.23 or 1.x."""

from inspect import signature

import pyro
import torch
from torch import Tensor

from ppvae.engine.checks import check_input, check_parameters, check_weights, to_device_of
from ppvae.engine.isolation import evaluation_mode
from ppvae.engine.pair import at_values, draw, sites_of
from ppvae.engine.tracing import OBSERVED, trace
from ppvae.evaluation.likelihood.simulated import refuse_discrete


def inference_data(
    model, guide, x: Tensor, *, draws: int = 500, candidates: int = 10, chunk: int = 10_000, seed: int = 0
):
    """Posterior, log likelihood, prior and observed data of a pair without discrete sites.

    The posterior draws are resampled from ``candidates * draws`` draws of the guide, with probability proportional to
    their weights p(x, z) / q(z | x): better than the guide's own, and no better than its k-hat.

    Args:
        model: generative model.
        guide: its guide.
        x: data, shape (B, *event_shape).
        draws: draws of each group, of one chain.
        candidates: draws of the guide for each that is kept.
        chunk: pairs of a draw and a datum that are evaluated at once; at least one datum is.
        seed: of the draws.

    Returns InferenceData with ArviZ 0.23, a DataTree with ArviZ 1.x; each variable has dimensions (chain, draw,
    datum, ...).
    """
    import arviz

    if min(draws, candidates, chunk) < 1:
        raise ValueError(f"expected draws, candidates and chunk of at least 1, got {draws}, {candidates} and {chunk}")
    check_parameters(model, guide)
    check_input(x, None)
    x = to_device_of(model, x)
    with evaluation_mode(model, guide, device=x.device, seed=seed), pyro.validation_enabled(False):
        refuse_discrete(sites_of(trace(model, x[:1], None, 1)))
        rows = max(1, chunk // (draws * candidates))
        parts = [
            _of_block(model, guide, x[start : start + rows], start, draws, candidates)
            for start in range(0, len(x), rows)
        ]
    groups = {group: _joined([part[group] for part in parts]) for group in ("posterior", "log_likelihood", "prior")}
    groups["observed_data"] = {OBSERVED: x.cpu().numpy()}
    by_keyword = "posterior" in signature(arviz.from_dict).parameters  # ArviZ 0.23
    return arviz.from_dict(**groups) if by_keyword else arviz.from_dict(groups)


def _of_block(model, guide, x: Tensor, first_row: int, draws: int, candidates: int) -> dict[str, dict[str, Tensor]]:
    """By group and variable, each (draws, B, ...)."""
    particles = draw(model, guide, x, num_particles=draws * candidates)
    check_weights(particles.log_weight, first_row)
    chosen = torch.multinomial(particles.log_weight.softmax(0).T, draws, replacement=True).T  # (draws, B)
    rows = torch.arange(len(x), device=x.device)
    values = {name: site.value[chosen, rows] for name, site in particles.guide.items()}
    likelihood = at_values(model, x, None, values, draws)[OBSERVED].log_prob
    prior = sites_of(trace(model, x, None, draws))
    return {
        "posterior": values,
        "log_likelihood": {OBSERVED: likelihood},
        "prior": {name: prior[name].value.expand(draws, *values[name].shape[1:]) for name in values},
    }


def _joined(parts: list[dict[str, Tensor]]) -> dict:
    """Blocks of rows put together, as arrays (chain, draw, datum, ...)."""
    return {name: torch.cat([part[name] for part in parts], 1).unsqueeze(0).cpu().numpy() for name in parts[0]}
