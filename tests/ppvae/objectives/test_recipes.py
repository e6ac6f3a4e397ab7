"""Recipes against the terms that their papers name."""

from dataclasses import replace
from functools import partial

import pytest
import torch

import ppvae
from ppvae.nn import MLP
from ppvae.objectives import InverseMultiquadratic
from ppvae.objectives.base import total
from tests.catalogue import PAIRS
from tests.ppvae.objectives.estimates import distortion_and_rate, particles_of


def with_critic_of(objective, term):
    """The term with the critic of that objective."""
    term.critic = objective.players[0].module
    return term


RECIPES = {
    "info_vae": (lambda: ppvae.info_vae(0.25, 10.0), 0.75, lambda _: ppvae.MaximumMeanDiscrepancy(9.25)),
    "info_vae with its defaults": (ppvae.info_vae, 0.0, lambda _: ppvae.MaximumMeanDiscrepancy(1000.0)),
    "info_vae_stein": (
        lambda: ppvae.info_vae(0.0, 10.0, ppvae.SteinDiscrepancy),
        1.0,
        lambda _: ppvae.SteinDiscrepancy(9.0),
    ),
    "info_vae without a rate": (lambda: ppvae.info_vae(1.0, 10.0), 0.0, lambda _: ppvae.MaximumMeanDiscrepancy(10.0)),
    "info_vae_adversarial": (
        lambda: ppvae.info_vae(0.0, 10.0, partial(ppvae.AdversarialDivergence, latent_dim=3)),
        1.0,
        lambda objective: with_critic_of(objective, ppvae.AdversarialDivergence(9.0, 3)),
    ),
    "wae": (
        lambda: ppvae.wae(10.0),
        0.0,
        lambda _: ppvae.MaximumMeanDiscrepancy(10.0, InverseMultiquadratic((0.1, 0.2, 0.5, 1, 2, 5, 10))),
    ),
    "adversarial_autoencoder": (
        lambda: ppvae.adversarial_autoencoder(3.0, latent_dim=3),
        0.0,
        lambda objective: with_critic_of(objective, ppvae.AdversarialDivergence(3.0, 3, non_saturating=True)),
    ),
    "factor_vae": (
        lambda: ppvae.factor_vae(35.0, latent_dim=3),
        1.0,
        lambda objective: with_critic_of(objective, ppvae.TotalCorrelation(35.0, 3)),
    ),
    "dip_vae_i": (lambda: ppvae.dip_vae_i(3.0), 1.0, lambda _: ppvae.DIPPenalty(3.0, 30.0, of_draws=False)),
    "dip_vae_ii": (lambda: ppvae.dip_vae_ii(3.0), 1.0, lambda _: ppvae.DIPPenalty(3.0, 3.0, of_draws=True)),
}


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_is_the_distortion_a_share_of_the_rate_and_its_term(name):
    make, rate_weight, term = RECIPES[name]
    objective, particles = make(), particles_of()
    distortion, rate = distortion_and_rate(particles)
    torch.manual_seed(0)
    loss = objective.per_datum(particles)
    torch.manual_seed(0)
    torch.testing.assert_close(loss, distortion + rate_weight * rate + term(objective).penalty(particles))


@pytest.mark.parametrize("penalty", [ppvae.DecoderWeights, partial(ppvae.DecoderGradient, num_probes=None)])
def test_rae_is_the_distortion_half_the_squared_code_and_a_penalty_of_the_decoder(penalty):
    particles = particles_of()
    distortion, _ = distortion_and_rate(particles)
    code = 0.5 * particles.guide["z"].value.square().sum(-1).mean(0)
    found = ppvae.rae(0.3, 0.2, penalty).per_datum(particles)
    torch.testing.assert_close(found, distortion + 0.3 * code + penalty(0.2).penalty(particles))


def test_rae_gives_its_terms_the_site():
    assert [term.site for term in ppvae.rae(penalty=ppvae.DecoderGradient, site="w").regularisers] == ["w", "w"]


def test_beta_tcvae_is_the_distortion_and_three_weighted_parts():
    particles = particles_of()
    parts = ppvae.TCDecomposition(100).decompose(particles)
    information, correlation, dimension_wise = (part.mean(0) for part in parts)
    distortion, rate = distortion_and_rate(particles)
    own = rate - correlation - dimension_wise  # the closed-form rate in place of log q - log p
    expected = distortion + own - 0.5 * information + 6 * correlation + 2 * dimension_wise
    torch.testing.assert_close(ppvae.beta_tcvae(100, 0.5, 6.0, 2.0).per_datum(particles), expected)


def test_geco_is_the_rate_and_the_weighed_constraint():
    particles = particles_of()
    distortion, rate = distortion_and_rate(particles)
    torch.testing.assert_close(ppvae.geco(30.0).per_datum(particles), rate + distortion - 30.0)


def test_info_vae_has_no_rate_by_default():
    """With the ELBO's rate and a large divergence weight a strong decoder drives the code to the prior: the mutual
    information has to be left out of the loss, which alpha = 1 does."""
    assert isinstance(ppvae.info_vae().objective, ppvae.Reconstruction)
    assert not [name for name in ppvae.info_vae().parts(particles_of()) if name.startswith("rate")]
    assert "rate/z" in ppvae.info_vae(alpha=0.0).parts(particles_of())


@pytest.mark.parametrize(("alpha", "lambda_"), [(0.0, 1.0), (0.5, 3.0), (-2.0, 5.0), (1.0, 7.0)])
def test_info_vae_weights_add_up_to_those_of_the_paper(alpha, lambda_):
    """(1 - alpha) KL and (alpha + lambda - 1) Div; a negative alpha is a heavier rate."""
    objective = ppvae.info_vae(alpha, lambda_)
    particles = particles_of()
    distortion, rate = distortion_and_rate(particles)
    torch.manual_seed(0)
    parts = objective.parts(particles)
    torch.manual_seed(0)
    mmd = ppvae.MaximumMeanDiscrepancy(1.0).penalty(particles)
    expected = distortion + (1 - alpha) * rate + (alpha + lambda_ - 1) * mmd
    torch.testing.assert_close(total(parts, 6), expected)


@pytest.mark.parametrize("recipe", [ppvae.factor_vae, ppvae.adversarial_autoencoder])
def test_recipe_with_a_critic_takes_another_network_and_its_optimizer(recipe):
    network, optimizer = MLP(3, [8], 1), partial(torch.optim.SGD, lr=0.1)
    (player,) = recipe(2.0, latent_dim=3, critic=network, optimizer=optimizer).players
    assert player.module.network is network
    assert player.optimizer is optimizer


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
def test_recipe_of_the_rate_weighs_one_site_or_all(recipe, term):
    model, guide, x = PAIRS["user"].make()
    particles = replace(ppvae.draw(model, guide, x), step=3)
    losses = []
    for site in (None, "shape"):
        loss = recipe(site).per_datum(particles)
        torch.testing.assert_close(loss, (ppvae.ELBO() + term(site)).per_datum(particles))
        losses.append(loss.sum())
    assert (losses[0] - losses[1]).abs() > 1e-3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ppvae.info_vae(alpha=1.5), "alpha of at most 1"),
        (lambda: ppvae.info_vae(0.0, 0.5), r"alpha \+ lambda_ of at least 1"),
        (lambda: ppvae.annealed_vae(-5.0), "capacity of at least 0, got -5"),
        (lambda: ppvae.annealed_vae(float("nan")), "finite"),
    ],
)
def test_recipe_refuses_arguments_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()
