"""Every guide with every bound that fits it, against models whose evidence is known."""

import copy

import pytest
import torch
from ppvae.guides import LabelGuide, LabelStyleGuide
from torch import nn

import ppvae
from ppvae.nn import MLP, LabelledMLP
from tests.catalogue import OBJECTIVES, PAIRS, Pair, two_layer_evidence
from tests.ppvae.oracles import (
    Exact,
    ExactLabelled,
    ExactTwoLayers,
    gaussian_mixture,
    labelled_linear,
    labelled_linear_log_joint,
    linear_gaussian,
)


def known(model, x):
    return model.log_evidence(x)


def labelled_evidence(model, x):
    return labelled_linear_log_joint(model, x).logsumexp(0)


def labelled(guide) -> Pair:
    return Pair(lambda: labelled_linear()[0], guide, lambda: labelled_linear()[1], labelled=True)


LABELLED = {
    "label_linear": labelled(lambda: LabelGuide(MLP(5, [], 3), MLP(5, [], 4))),
    "label_style_linear": labelled(
        lambda: LabelStyleGuide(MLP(5, [], 3), LabelledMLP(5, 3, [4], 4, activation=nn.Identity))
    ),
}
EVIDENCE = {
    **{name: known for name in PAIRS if name.startswith("flow_") and name != "flow_prior"},
    **dict.fromkeys(["linear_gaussian", "full_rank", "mixture_guide", "mixture"], known),
    **dict.fromkeys(["bottom_up", "top_down"], two_layer_evidence),
    **dict.fromkeys(LABELLED, labelled_evidence),
}
ORACLES = {name: (PAIRS | LABELLED)[name] for name in EVIDENCE}
BOUNDS = {name: estimator for name, estimator in OBJECTIVES.items() if estimator.make().kind != "other"}
CELLS = [
    (pair, objective) for pair in ORACLES for objective, estimator in BOUNDS.items() if estimator.fits(ORACLES[pair])
]
EXACT = {
    "linear_gaussian": (linear_gaussian, Exact, known),
    "mixture": (gaussian_mixture, Exact, known),
    "two_layers": (lambda: PAIRS["bottom_up"].make()[::2], ExactTwoLayers, two_layer_evidence),
    "labelled": (labelled_linear, ExactLabelled, labelled_evidence),
}
EXACT_CELLS = [(oracle, objective) for oracle in EXACT for objective in BOUNDS]


@pytest.mark.parametrize(("pair", "objective"), CELLS)
def test_no_bound_passes_the_evidence(pair, objective):
    model, guide, x = ORACLES[pair].make()
    estimator = BOUNDS[objective].make()
    particles = ppvae.draw(model, guide, x.repeat(300, 1), num_particles=estimator.num_particles)
    bound = -estimator.per_datum(particles).detach().reshape(300, len(x))
    evidence = EVIDENCE[pair](model, x)
    assert (bound.mean(0) < evidence + 4 * bound.std(0) / 300**0.5 + 1e-9).all()
    assert (bound.mean(0) < evidence + 1e-9).any() or ORACLES[pair].discrete_only


@pytest.mark.parametrize(("oracle", "objective"), EXACT_CELLS)
def test_every_bound_is_the_evidence_at_the_exact_posterior(oracle, objective):
    make, exact, evidence = EXACT[oracle]
    model, x = make()
    estimator = BOUNDS[objective].make()
    torch.manual_seed(0)
    particles = ppvae.draw(model, exact(model), x.repeat(200, 1), num_particles=estimator.num_particles)
    bound = -estimator.per_datum(particles).reshape(200, len(x))
    # A KL in closed form leaves the noise of the other terms; all else has none.
    error = bound.std(0) / 200**0.5 if objective == "elbo" else 0.0
    assert ((bound.mean(0) - evidence(model, x)).abs() < 4 * error + 1e-8).all()
    assert objective == "elbo" or bound.std(0).max() < 1e-8


@pytest.mark.parametrize(("oracle", "objective"), EXACT_CELLS)
def test_the_models_gradient_at_the_exact_posterior_is_that_of_the_evidence(oracle, objective):
    """Fisher's identity: d log p(x) = E[d log p(x, z)] over the posterior."""
    make, exact, evidence = EXACT[oracle]
    model, x = make()
    guide = exact(copy.deepcopy(model))  # of parameters of its own, which the model's do not move
    estimator, parameters = BOUNDS[objective].make(), list(model.parameters())
    expected = torch.autograd.grad(evidence(model, x).sum(), parameters)
    repeats, rows = 30, 20
    torch.manual_seed(0)
    sample = [
        torch.autograd.grad(-estimator.differentiable_loss(model, guide, x.repeat(rows, 1)) / rows, parameters)
        for _ in range(repeats)
    ]
    for each, value in zip(zip(*sample, strict=True), expected, strict=True):
        each = torch.stack(each)
        error = each.std(0) / repeats**0.5
        # 30 repeats know their own error to 13%, and there are 600 coordinates in all: 5 deviations
        agrees = (each.mean(0) - value).abs() < 5 * error + 1e-8
        assert (agrees | (value == 0)).all()  # the two layers' closed form holds a scale fixed that the model learns
        assert (value != 0).any()


@pytest.mark.parametrize("pair", EVIDENCE)
def test_training_by_the_elbo_closes_most_of_the_distance_to_the_evidence(pair):
    model, guide, x = ORACLES[pair].make()
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
