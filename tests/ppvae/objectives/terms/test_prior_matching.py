"""Divergences of the aggregate posterior from the prior."""

import pytest
import torch

import ppvae
from ppvae.engine.player import Turn
from ppvae.guides import MeanFieldGaussian
from ppvae.models import MixtureOfGaussians
from ppvae.nn import MLP
from ppvae.objectives import InverseMultiquadratic
from tests.catalogue import PAIRS
from tests.ppvae.objectives.estimates import gradient, particles_of

DIVERGENCES = {
    "rbf": ppvae.MaximumMeanDiscrepancy(1.0),
    "inverse multiquadratic": ppvae.MaximumMeanDiscrepancy(1.0, InverseMultiquadratic((0.5, 2.0))),
    "stein": ppvae.SteinDiscrepancy(1.0),
}


def penalties(term, model, guide, x):
    torch.manual_seed(0)
    with torch.no_grad():
        return torch.stack([term.penalty(ppvae.draw(model, guide, x, num_particles=20)) for _ in range(100)])


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_divergence_has_mean_zero_where_the_aggregate_posterior_is_the_prior_alone(divergence):
    """q(z | x) = p(z) for every x, then the same moved by 1."""
    model, _, x = PAIRS["linear_gaussian"].make()
    guide = MeanFieldGaussian(MLP(5, [], 4)).double()
    torch.nn.init.zeros_(guide.encoder.layers[0].weight)
    torch.nn.init.zeros_(guide.encoder.layers[0].bias)
    values = penalties(DIVERGENCES[divergence], model, guide, x)
    error = values.std() / len(values) ** 0.5
    assert values.mean().abs() < 4 * error
    with torch.no_grad():
        guide.encoder.layers[0].bias[:2] += 1.0
    assert penalties(DIVERGENCES[divergence], model, guide, x).mean() > 10 * error


@pytest.mark.parametrize("make", [ppvae.MaximumMeanDiscrepancy, ppvae.SteinDiscrepancy], ids=lambda term: term.__name__)
def test_divergence_is_its_weight_times_what_it_weighs(make):
    particles, values = particles_of(), []
    for weight in (1.0, 2.5):
        torch.manual_seed(0)
        values.append(make(weight).penalty(particles))
    assert values[0].abs() > 1e-3
    torch.testing.assert_close(values[1], 2.5 * values[0])


@pytest.mark.parametrize("non_saturating", [False, True])
def test_adversarial_divergence_is_the_mean_ratio_or_its_softplus(non_saturating):
    particles = particles_of()
    term = ppvae.AdversarialDivergence(2.0, latent_dim=3, non_saturating=non_saturating)
    ratio = term.critic.log_ratio(particles.guide["z"].value)
    ratio = torch.nn.functional.softplus(ratio) if non_saturating else ratio
    torch.testing.assert_close(term.penalty(particles), 2 * ratio.mean(0))


def test_prior_critic_tells_draws_of_the_guide_from_draws_of_the_prior():
    model, guide, x = PAIRS["gaussian_vae"].make()
    term = ppvae.AdversarialDivergence(1.0, latent_dim=3)
    particles = ppvae.draw(model, guide, x, num_particles=2)
    torch.manual_seed(0)
    loss = term.critic.loss(Turn([], particles=[particles]))
    loss.backward()
    torch.manual_seed(0)
    of_prior = particles.model["z"].distribution.rsample()
    on_z, on_prior = (term.critic.network(z.float().detach()) for z in (particles.draws["z"], of_prior))
    softplus = torch.nn.functional.softplus
    torch.testing.assert_close(loss, (softplus(-on_z).mean() + softplus(on_prior).mean()) / 2)
    assert all(p.grad is None for module in (model, guide) for p in module.parameters())
    assert all(p.grad.abs().sum() > 0 for p in term.critic.parameters())


@pytest.mark.parametrize(
    "objective",
    [ppvae.wae(), ppvae.info_vae(), ppvae.adversarial_autoencoder(latent_dim=3)],
    ids=["wae", "info", "aae"],
)
def test_divergence_refuses_a_trainable_prior_that_it_gives_no_gradient(objective):
    model, guide, x = PAIRS["gaussian_vae"].make()
    model.prior = MixtureOfGaussians(3, components=2)
    with pytest.raises(ppvae.ContractError, match=r"fixed prior of 'z', got a trainable one.*SteinDiscrepancy"):
        objective.per_datum(ppvae.draw(model, guide, x))
    model.prior.requires_grad_(False)
    assert torch.isfinite(objective.per_datum(ppvae.draw(model, guide, x))).all()


def test_stein_discrepancy_gives_a_gradient_to_a_prior_without_reparameterised_draws():
    model, guide, x = PAIRS["gaussian_vae"].make()
    model.prior = MixtureOfGaussians(3, components=2)
    ppvae.SteinDiscrepancy(1.0).penalty(ppvae.draw(model, guide, x)).backward()
    assert all(p.grad.abs().sum() > 0 for p in model.prior.parameters())


def test_wae_trains_a_guide_that_scores_its_own_draws_alone():
    model, guide, x = PAIRS["flow_planar"].make()
    assert gradient(ppvae.wae(), model, guide, x).abs().max() > 0


@pytest.mark.parametrize("make", [ppvae.MaximumMeanDiscrepancy, ppvae.SteinDiscrepancy, ppvae.AdversarialDivergence])
def test_divergence_refuses_a_weight_below_zero(make):
    with pytest.raises(ValueError, match="weight of at least 0, got -1"):
        make(-1.0)
