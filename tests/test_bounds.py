"""Every guide with every bound that fits it, against models whose evidence is known."""

import pytest
import torch

import ppvae
from tests.catalogue import OBJECTIVES, PAIRS, two_layer_evidence

EVIDENCE = {
    **{name: lambda model, x: model.log_evidence(x) for name in PAIRS if name.startswith("flow_")},
    "linear_gaussian": lambda model, x: model.log_evidence(x),
    "full_rank": lambda model, x: model.log_evidence(x),
    "mixture_guide": lambda model, x: model.log_evidence(x),
    "mixture": lambda model, x: model.log_evidence(x),
    "bottom_up": two_layer_evidence,
    "top_down": two_layer_evidence,
}
del EVIDENCE["flow_prior"]
NO_BOUNDS = {"forward_kl", "semi_supervised", "semi_supervised_iwae"}
CELLS = [
    (pair, objective)
    for pair in EVIDENCE
    for objective, estimator in OBJECTIVES.items()
    if objective not in NO_BOUNDS and estimator.fits(PAIRS[pair])
]


@pytest.mark.parametrize(("pair", "objective"), CELLS)
def test_no_bound_passes_the_evidence(pair, objective):
    model, guide, x = PAIRS[pair].make()
    estimator = OBJECTIVES[objective].make()
    particles = ppvae.draw(model, guide, x.repeat(300, 1), num_particles=estimator.num_particles)
    bound = -estimator.per_datum(particles).detach().reshape(300, len(x))
    evidence = EVIDENCE[pair](model, x)
    assert (bound.mean(0) < evidence + 4 * bound.std(0) / 300**0.5 + 1e-9).all()
    assert (bound.mean(0) < evidence + 1e-9).any() or PAIRS[pair].discrete_only


@pytest.mark.parametrize("pair", EVIDENCE)
def test_training_by_the_elbo_closes_most_of_the_distance_to_the_evidence(pair):
    model, guide, x = PAIRS[pair].make()
    model.requires_grad_(False)
    evidence = EVIDENCE[pair](model, x).mean()

    def distance():
        particles = ppvae.draw(model, guide, x.repeat(100, 1), num_particles=1)
        return (evidence + ppvae.ELBO(analytic_kl=False).per_datum(particles).mean()).item()

    before = distance()
    optimizer = torch.optim.Adam(guide.parameters(), 0.02)
    for _ in range(150):
        optimizer.zero_grad()
        ppvae.ELBO(10).differentiable_loss(model, guide, x).backward()
        optimizer.step()
    assert distance() < 0.5 * before
