"""Regularisers against what they are defined to be, and how they combine."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from ppvae.guides import MeanFieldGaussian

import ppvae
from ppvae.nn import MLP
from ppvae.objectives import InverseMultiquadratic
from tests.catalogue import PAIRS
from tests.ppvae.objectives.estimates import distortion_and_rate, gradient, particles_of, per_row, rows


def at_step(particles, step):
    return replace(particles, step=step)


@pytest.mark.parametrize("pair", ["gaussian_vae", "bottom_up", "label", "user"])
def test_kl_weight_weighs_the_kl_of_all_latents(pair):
    particles = particles_of(pair)
    distortion, rate = distortion_and_rate(particles)
    torch.testing.assert_close(ppvae.beta_vae(4.0).per_datum(particles), distortion + 4 * rate)
    torch.testing.assert_close(ppvae.beta_vae(1.0).per_datum(particles), ppvae.ELBO().per_datum(particles))


def test_kl_weight_of_one_site_leaves_the_other():
    particles = particles_of("user")
    distortion, _ = distortion_and_rate(particles)
    loss = (ppvae.ELBO() + ppvae.KLWeight(0.0, site="shape")).per_datum(particles)
    torch.testing.assert_close(loss, distortion + particles.kl("size"))


def test_capacity_pays_for_the_distance_of_the_mean_rate_from_it():
    particles = particles_of()
    distortion, rate = distortion_and_rate(particles)
    for capacity in (0.5 * rate.mean().item(), 2 * rate.mean().item()):
        loss = (ppvae.ELBO() + ppvae.Capacity(capacity, gamma=7.0)).per_datum(particles).mean()
        torch.testing.assert_close(loss, distortion.mean() + 7 * (rate.mean() - capacity).abs())


def test_schedules_follow_the_step_and_evaluating_counts_nothing():
    warm = ppvae.warm_up(10)
    assert [warm(step) for step in (0, 5, 10, 1000)] == [0, 0.5, 1, 1]
    assert ppvae.Ramp(2.0, 4.0, 4)(1) == 2.5
    particles = particles_of()
    distortion, rate = distortion_and_rate(particles)
    objective = ppvae.beta_vae(warm)
    for step in (0, 5, 20):
        expected = distortion + warm(step) * rate
        torch.testing.assert_close(objective.per_datum(at_step(particles, step)), expected)
    annealed = ppvae.annealed_vae(capacity=2.0, steps=10, gamma=3.0)
    loss = annealed.per_datum(at_step(particles, 5)).mean()
    torch.testing.assert_close(loss, distortion.mean() + 3 * (rate.mean() - 1.0).abs())


def test_constrained_reconstruction_is_the_lagrangian():
    particles = particles_of()
    distortion, rate = distortion_and_rate(particles)
    objective = ppvae.geco(tolerance=30.0)
    torch.testing.assert_close(objective.per_datum(particles), rate + distortion - 30.0)
    with torch.no_grad():
        objective.adversaries[0].log_multiplier.fill_(math.log(5.0))
    torch.testing.assert_close(objective.per_datum(particles), rate + 5 * (distortion - 30.0))


def test_moment_penalties_are_those_of_numpy():
    particles = particles_of(num_particles=1)
    q = particles.guide["z"].distribution.base_dist
    means = q.mean[0].detach()
    of_means = torch.from_numpy(np.cov(means.numpy(), rowvar=False, bias=True))
    of_draws = of_means + q.variance[0].detach().mean(0).diag()
    for covariance, recipe in ((of_means, ppvae.dip_vae_i(2.0)), (of_draws, ppvae.dip_vae_ii(2.0))):
        diagonal = 20.0 if recipe.regularisers[0].of_draws is False else 2.0
        others = (covariance - covariance.diagonal().diag()).square().sum()
        expected = 2.0 * others + diagonal * (covariance.diagonal() - 1).square().sum()
        torch.testing.assert_close(recipe.regularisers[0].penalty(particles), expected)


def test_moment_penalties_of_a_full_covariance_have_its_off_diagonal_elements():
    particles = particles_of("full_rank")
    fn = particles.guide["z"].distribution
    z = fn.sample((200_000,))
    centred = z - z.mean((0, 2), keepdim=True)
    covariance = (centred.unsqueeze(-1) * centred.unsqueeze(-2)).mean((0, 1, 2))
    expected = 2 * covariance[0, 1] ** 2 + (covariance.diagonal() - 1).square().sum()
    penalty = ppvae.DIPPenalty(1.0, 1.0, of_draws=True).penalty(particles)
    # 200,000 draws of 6 data, K = 2: a relative error of some 1/500 of each moment.
    torch.testing.assert_close(penalty, expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    "term",
    [
        ppvae.MaximumMeanDiscrepancy(1.0),
        ppvae.MaximumMeanDiscrepancy(1.0, InverseMultiquadratic((0.5, 2.0))),
        ppvae.SteinDiscrepancy(1.0),
    ],
    ids=["rbf", "inverse-multiquadratic", "stein"],
)
def test_divergences_vanish_where_the_aggregate_is_the_prior_and_not_elsewhere(term):
    """q(z | x) = p(z) for every x, then the same moved by 1."""
    model, _, x = PAIRS["linear_gaussian"].make()
    guide = MeanFieldGaussian(MLP(5, [], 4)).double()
    torch.nn.init.zeros_(guide.encoder.layers[0].weight)
    torch.nn.init.zeros_(guide.encoder.layers[0].bias)
    values = _penalties(term, model, guide, x)
    error = values.std() / len(values) ** 0.5
    assert values.mean().abs() < 4 * error
    with torch.no_grad():
        guide.encoder.layers[0].bias[:2] += 1.0
    assert _penalties(term, model, guide, x).mean() > 10 * error


def _penalties(term, model, guide, x):
    torch.manual_seed(0)
    with torch.no_grad():
        return torch.stack([term.penalty(ppvae.draw(model, guide, x, num_particles=20)) for _ in range(100)])


def test_adversarial_losses_are_the_mean_ratio_and_its_softplus():
    particles = particles_of()
    for non_saturating, link in ((False, lambda d: d), (True, torch.nn.functional.softplus)):
        term = ppvae.AdversarialDivergence(2.0, latent_dim=3, non_saturating=non_saturating)
        ratio = term.adversary.log_ratio(particles.guide["z"].value)
        torch.testing.assert_close(term.penalty(particles), 2 * link(ratio).mean(0))


def test_a_sum_is_the_bound_and_all_its_terms():
    particles = particles_of()
    moments = ppvae.DIPPenalty(1.0, 1.0, of_draws=True)
    terms = [ppvae.KLWeight(2.0), moments, ppvae.TotalCorrelation(3.0, latent_dim=3)]
    objective = ppvae.IWAE(2) + terms[0] + terms[1] + terms[2]
    assert objective.regularisers == tuple(terms)
    expected = ppvae.IWAE(2).per_datum(particles) + sum(term.penalty(particles) for term in terms)
    torch.testing.assert_close(objective.per_datum(particles), expected)
    assert objective.num_particles == 2


def test_a_term_of_the_guide_keeps_its_whole_gradient_beside_an_estimator_that_weighs_the_path():
    model, guide, x = rows(50)
    term = ppvae.DIPPenalty(1.0, 1.0, of_draws=True)
    alone = torch.cat(torch.autograd.grad(50 * term.penalty(ppvae.draw(model, guide, x)), [*guide.parameters()]), -1)
    dreg = per_row(ppvae.DReG(3), model, guide, x)
    torch.testing.assert_close(per_row(ppvae.DReG(3) + term, model, guide, x), dreg + alone)


def test_a_label_before_the_latent_does_not_matter_where_the_prior_does_not_depend_on_it():
    particles = particles_of("label")
    assert torch.isfinite(ppvae.info_vae(0.0, 10.0).per_datum(particles)).all()


def test_an_objective_that_is_regularised_keeps_its_terms():
    inner = ppvae.factor_vae(5.0, latent_dim=3)
    outer = ppvae.Regularised(inner, [ppvae.KLWeight(2.0)])
    assert outer.adversaries == inner.adversaries
    assert len(outer.regularisers) == 2
    assert isinstance(outer.objective, ppvae.ELBO)


def test_penalties_are_their_weight_times_what_they_weigh():
    particles = particles_of()
    makers = [
        lambda w: ppvae.MaximumMeanDiscrepancy(w),
        lambda w: ppvae.SteinDiscrepancy(w),
        lambda w: ppvae.DIPPenalty(w, 2 * w, of_draws=True),
    ]
    for make in makers:
        values = []
        for weight in (1.0, 2.5):
            torch.manual_seed(0)
            values.append(make(weight).penalty(particles))
        assert values[0].abs() > 1e-3
        torch.testing.assert_close(values[1], 2.5 * values[0])
    term = ppvae.TotalCorrelation(2.5, latent_dim=3)
    ratio = term.adversary.network(particles.guide["z"].value.float()).squeeze(-1)
    torch.testing.assert_close(term.penalty(particles), 2.5 * ratio.mean(0))
    assert ratio.abs().min() > 0


def test_decomposition_weighs_each_part_by_its_own():
    particles = particles_of()
    term = ppvae.TCDecomposition(100, alpha=0.5, beta=6.0, gamma=2.0)
    information, correlation, dimension_wise = term.parts(particles)
    expected = -0.5 * information + 5 * correlation + dimension_wise
    torch.testing.assert_close(term.penalty(particles), expected.mean(0))


TERMS = {
    "kl": lambda: ppvae.KLWeight(3.0),
    "capacity": lambda: ppvae.Capacity(0.5, gamma=3.0),
    "decomposition": lambda: ppvae.TCDecomposition(50, 0.5, 6.0, 2.0),
    "covariance": lambda: ppvae.DIPPenalty(1.0, 2.0, of_draws=True),
    "mmd": lambda: ppvae.MaximumMeanDiscrepancy(3.0),
    "stein": lambda: ppvae.SteinDiscrepancy(3.0),
    "critic": lambda: ppvae.TotalCorrelation(3.0, 3, critic=MLP(3, [8], 1, torch.nn.Tanh).double()),
    "prior critic": lambda: ppvae.AdversarialDivergence(3.0, 3, critic=MLP(3, [8], 1, torch.nn.Tanh).double()),
}


@pytest.mark.parametrize("name", TERMS)
def test_gradients_are_those_of_finite_differences(name):
    model, guide, x = PAIRS["gaussian_vae"].make()
    torch.manual_seed(1)
    objective = ppvae.ELBO() + TERMS[name]()
    bias = guide.encoder.layers[-1].bias

    def value(shift=0.0, element=0):
        torch.manual_seed(0)
        with torch.no_grad():
            bias[element] += shift
        loss = objective.per_datum(ppvae.draw(model, guide, x)).sum()
        with torch.no_grad():
            bias[element] -= shift
        return loss

    exact = torch.autograd.grad(value(), bias)[0]
    for element in (0, 4):  # a mean and a scale
        numeric = (value(1e-5, element) - value(-1e-5, element)) / 2e-5
        torch.testing.assert_close(exact[element], numeric.detach(), rtol=1e-5, atol=1e-6)


def test_wae_trains_a_guide_that_scores_nothing_but_its_own_draws():
    model, guide, x = PAIRS["flow_planar"].make()
    assert gradient(ppvae.wae(), model, guide, x).abs().max() > 0
