"""Recipes by their names, against the terms that the papers say."""

from functools import partial

import pytest
import torch

import ppvae
from ppvae.nn import MLP
from ppvae.objectives import InverseMultiquadratic
from tests.catalogue import PAIRS
from tests.ppvae.objectives.estimates import distortion_and_rate, particles_of


def with_critic(term, objective):
    """The same term with the critic of that objective."""
    (term.adversary,) = objective.adversaries
    return term


RECIPES = {
    "info_vae": (lambda: ppvae.info_vae(0.25, 10.0), 0.75, lambda _: ppvae.MaximumMeanDiscrepancy(9.25)),
    "info_vae_stein": (
        lambda: ppvae.info_vae(0.0, 10.0, ppvae.SteinDiscrepancy),
        1.0,
        lambda _: ppvae.SteinDiscrepancy(9.0),
    ),
    "info_vae_without_rate": (lambda: ppvae.info_vae(1.0, 10.0), 0.0, lambda _: ppvae.MaximumMeanDiscrepancy(10.0)),
    "info_vae_adversarial": (
        lambda: ppvae.info_vae(0.0, 10.0, partial(ppvae.AdversarialDivergence, latent_dim=3)),
        1.0,
        lambda objective: with_critic(ppvae.AdversarialDivergence(9.0, 3), objective),
    ),
    "wae": (
        lambda: ppvae.wae(10.0),
        0.0,
        lambda _: ppvae.MaximumMeanDiscrepancy(10.0, InverseMultiquadratic((0.1, 0.2, 0.5, 1, 2, 5, 10))),
    ),
    "adversarial_autoencoder": (
        lambda: ppvae.adversarial_autoencoder(3.0, latent_dim=3),
        0.0,
        lambda objective: with_critic(ppvae.AdversarialDivergence(3.0, 3, non_saturating=True), objective),
    ),
    "factor_vae": (
        lambda: ppvae.factor_vae(35.0, latent_dim=3),
        1.0,
        lambda objective: with_critic(ppvae.TotalCorrelation(35.0, 3), objective),
    ),
    "beta_tcvae": (lambda: ppvae.beta_tcvae(100, 0.5, 6.0, 2.0), 1.0, lambda _: Weighed(0.5, 6.0, 2.0)),
    "dip_vae_i": (
        lambda: ppvae.dip_vae_i(3.0),
        1.0,
        lambda _: ppvae.DIPPenalty(3.0, 30.0, of_draws=False),
    ),
    "dip_vae_ii": (
        lambda: ppvae.dip_vae_ii(3.0),
        1.0,
        lambda _: ppvae.DIPPenalty(3.0, 3.0, of_draws=True),
    ),
}


class Weighed:
    """Mutual information, total correlation and dimension-wise KL, by name."""

    def __init__(self, information, correlation, dimension_wise):
        self.weights = information, correlation, dimension_wise

    def penalty(self, particles):
        parts = ppvae.TCDecomposition(100).parts(particles)
        return sum((weight - 1) * part.mean(0) for weight, part in zip(self.weights, parts, strict=True))


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_pay_for_what_they_say(name):
    make, rate_weight, term = RECIPES[name]
    objective, particles = make(), particles_of()
    distortion, rate = distortion_and_rate(particles)
    torch.manual_seed(0)
    loss = objective.per_datum(particles)
    torch.manual_seed(0)
    torch.testing.assert_close(loss, distortion + rate_weight * rate + term(objective).penalty(particles))


@pytest.mark.parametrize("recipe", [ppvae.factor_vae, ppvae.adversarial_autoencoder])
def test_recipes_with_a_critic_take_another_and_its_optimizer(recipe):
    network, optimizer = MLP(3, [8], 1), partial(torch.optim.SGD, lr=0.1)
    (critic,) = recipe(2.0, latent_dim=3, critic=network, optimizer=optimizer).adversaries
    assert critic.network is network
    assert critic.optimizer is optimizer


@pytest.mark.parametrize(
    ("recipe", "term"),
    [
        (lambda site: ppvae.beta_vae(4.0, site=site), lambda site: ppvae.KLWeight(4.0, site)),
        (
            lambda site: ppvae.annealed_vae(2.0, 10, start=2.0, site=site),
            lambda site: ppvae.Capacity(2.0, 1000.0, site),
        ),
    ],
)
def test_recipes_of_the_rate_weigh_one_site_or_all(recipe, term):
    model, guide, x = PAIRS["user"].make()
    particles = ppvae.objectives.base.replay(model, guide, x, step=3)
    losses = []
    for site in (None, "shape"):
        loss = recipe(site).per_datum(particles)
        torch.testing.assert_close(loss, (ppvae.ELBO() + term(site)).per_datum(particles))
        losses.append(loss.sum())
    assert (losses[0] - losses[1]).abs() > 1e-3
