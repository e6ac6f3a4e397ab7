"""Handing a pair over to ArviZ, 0.23 or 1.x."""

from inspect import signature

import torch
from torch import Tensor

from ppvae.checks import beside, check_input, check_parameters
from ppvae.evaluation.simulated import refuse_discrete
from ppvae.isolation import untouched
from ppvae.replay import at_values, draw, sites_of
from ppvae.tracing import OBSERVED, trace


def inference_data(model, guide, x: Tensor, *, draws: int = 500, candidates: int = 10, seed: int = 0):
    """Posterior, log likelihood, prior and observed data of a pair without discrete sites.

    The posterior draws are resampled from ``candidates * draws`` draws of the guide, with probability proportional to
    their weights p(x, z) / q(z | x): better than the guide's own, and no better than its k-hat.

    Args:
        model: generative model.
        guide: its guide.
        x: data, shape (B, *event_shape).
        draws: draws of each group, of one chain.
        candidates: draws of the guide for each that is kept.
        seed: of the draws.

    Returns InferenceData with ArviZ 0.23, a DataTree with ArviZ 1.x; each variable has dimensions (chain, draw,
    datum, ...).
    """
    import arviz

    check_parameters(model, guide)
    check_input(x, None)
    x = beside(model, x)
    with untouched(model, guide, device=x.device, seed=seed):
        refuse_discrete(sites_of(trace(model, x[:1], None, 1)))
        particles = draw(model, guide, x, num_particles=draws * candidates)
        chosen = torch.multinomial(particles.log_weight.softmax(0).T, draws, replacement=True).T  # (draws, B)
        rows = torch.arange(len(x), device=x.device)
        values = {name: site.value[chosen, rows] for name, site in particles.guide.items()}
        likelihood = at_values(model, x, None, values, draws)[OBSERVED].log_prob
        prior = sites_of(trace(model, x, None, draws))
    groups = {
        "posterior": {name: _array(value) for name, value in values.items()},
        "log_likelihood": {OBSERVED: _array(likelihood)},
        "prior": {name: _array(prior[name].value.expand(draws, *values[name].shape[1:])) for name in values},
        "observed_data": {OBSERVED: x.cpu().numpy()},
    }
    by_keyword = "posterior" in signature(arviz.from_dict).parameters  # ArviZ 0.23
    return arviz.from_dict(**groups) if by_keyword else arviz.from_dict(groups)


def _array(value: Tensor):
    return value.unsqueeze(0).cpu().numpy()
