"""Penalties on the covariance of the aggregate posterior."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import ppvae
from tests.ppvae.objectives.estimates import particles_of


def test_dip_penalties_are_those_of_numpys_covariances():
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


def test_dip_penalty_of_a_full_covariance_has_its_off_diagonal_elements():
    particles = particles_of("full_rank")
    fn = particles.guide["z"].distribution
    z = fn.sample((200_000,))
    centred = z - z.mean((0, 2), keepdim=True)
    covariance = (centred.unsqueeze(-1) * centred.unsqueeze(-2)).mean((0, 1, 2))
    expected = 2 * covariance[0, 1] ** 2 + (covariance.diagonal() - 1).square().sum()
    penalty = ppvae.DIPPenalty(1.0, 1.0, of_draws=True).penalty(particles)
    # 200,000 draws of 6 data, K = 2: a relative error of some 1/500 of each moment.
    torch.testing.assert_close(penalty, expected, rtol=0.02, atol=0.02)


def test_dip_penalty_weighs_diagonal_and_other_elements_apart():
    particles = particles_of("linear_gaussian")
    both = ppvae.DIPPenalty(2.0, 3.0, of_draws=True).penalty(particles)
    others = ppvae.DIPPenalty(1.0, 0.0, of_draws=True).penalty(particles)
    diagonal = ppvae.DIPPenalty(0.0, 1.0, of_draws=True).penalty(particles)
    torch.testing.assert_close(both, 2 * others + 3 * diagonal)
    assert min(others, diagonal) > 0.01


def test_dip_penalty_takes_schedules():
    particles = replace(particles_of(), step=5)
    term = ppvae.DIPPenalty(ppvae.warm_up(10), 0.0, of_draws=True)
    half = 0.5 * ppvae.DIPPenalty(1.0, 0.0, of_draws=True).penalty(particles)
    torch.testing.assert_close(term.penalty(particles), half)


@pytest.mark.parametrize(("off_diagonal", "diagonal"), [(-1.0, 1.0), (1.0, -1.0)])
def test_dip_penalty_refuses_weights_below_zero(off_diagonal, diagonal):
    with pytest.raises(ValueError, match="diagonal of at least 0, got -1"):
        ppvae.DIPPenalty(off_diagonal, diagonal, of_draws=True)
