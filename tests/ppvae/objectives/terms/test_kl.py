"""The weight of the rate, and its capacity."""

import math
from dataclasses import replace

import pytest
import torch

import ppvae
from tests.catalogue import LABELS, PAIRS
from tests.ppvae.objectives.estimates import distortion_and_rate, particles_of


def at_step(particles, step):
    return replace(particles, step=step)


@pytest.mark.parametrize("pair", ["gaussian_vae", "bottom_up", "label", "user"])
def test_kl_weight_weighs_the_kl_of_all_latents(pair):
    particles = particles_of(pair)
    distortion, rate = distortion_and_rate(particles)
    torch.testing.assert_close(ppvae.beta_vae(4.0).per_datum(particles), distortion + 4 * rate)
    torch.testing.assert_close(ppvae.beta_vae(1.0).per_datum(particles), ppvae.ELBO().per_datum(particles))


def test_kl_weight_keeps_the_names_of_the_parts():
    particles = particles_of("user")
    weighted = ppvae.beta_vae(4.0).parts(particles)
    plain = ppvae.ELBO().parts(particles)
    assert list(weighted) == list(plain) == ["distortion", "rate/shape", "rate/size"]
    torch.testing.assert_close(weighted["rate/size"], 4 * plain["rate/size"])


def test_kl_weight_of_one_site_leaves_the_other():
    particles = particles_of("user")
    distortion, _ = distortion_and_rate(particles)
    loss = (ppvae.ELBO() + ppvae.KLWeight(0.0, site="shape")).per_datum(particles)
    torch.testing.assert_close(loss, distortion + particles.kl("size"))


def test_kl_weight_of_sticking_the_landing_weighs_its_own_rate():
    particles = particles_of("user")
    parts = ppvae.StickingTheLanding(2).parts(particles)
    weighted = (ppvae.StickingTheLanding(2) + ppvae.KLWeight(3.0)).per_datum(particles)
    torch.testing.assert_close(weighted, parts["distortion"] + 3 * (parts["rate/shape"] + parts["rate/size"]))


def test_kl_weight_of_a_label_weighs_it_where_it_is_unknown():
    known, mixed = particles_of("label", y=LABELS.clamp(min=0)), particles_of("label", y=LABELS)
    objective = ppvae.ELBO() + ppvae.KLWeight(3.0, site="y")
    torch.testing.assert_close(objective.per_datum(known), ppvae.ELBO().per_datum(known))
    extra = objective.per_datum(mixed) - ppvae.ELBO().per_datum(mixed)
    torch.testing.assert_close(extra, 2 * mixed.kl("y"))
    assert (extra[LABELS < 0] > 0).all()


@pytest.mark.parametrize("gamma", [7.0, 0.0])
@pytest.mark.parametrize("pair", ["gaussian_vae", "user"])
def test_capacity_is_the_distance_of_the_mean_rate_from_it(pair, gamma):
    particles = particles_of(pair)
    distortion, rate = distortion_and_rate(particles)
    for capacity in (0.5 * rate.mean().item(), 2 * rate.mean().item()):
        objective = ppvae.ELBO() + ppvae.Capacity(capacity, gamma)
        parts = objective.parts(particles)
        assert parts.keys() == {"distortion", "capacity"}
        expected = gamma * (rate.mean() - capacity).abs()
        torch.testing.assert_close(parts["capacity"], expected)
        torch.testing.assert_close(objective.per_datum(particles), distortion + expected)


def test_capacity_of_one_site_leaves_the_rate_of_the_other():
    particles = particles_of("user")
    parts = (ppvae.ELBO() + ppvae.Capacity(1.0, 2.0, site="shape")).parts(particles)
    assert parts.keys() == {"distortion", "rate/size", "capacity"}
    torch.testing.assert_close(parts["capacity"], 2 * (particles.kl("shape").mean() - 1).abs())


def test_capacity_of_a_label_costs_nothing_where_every_label_is_known():
    particles = particles_of("label", y=LABELS.clamp(min=0))
    objective = ppvae.ELBO() + ppvae.Capacity(1.0, site="y")
    assert objective.parts(particles).keys() == {"distortion", "rate/z"}


def test_schedules_are_read_at_the_step_of_the_particles():
    warm = ppvae.warm_up(10)
    particles = particles_of()
    distortion, rate = distortion_and_rate(particles)
    objective = ppvae.beta_vae(warm)
    for step in (0, 5, 20):
        expected = distortion + warm(step) * rate
        torch.testing.assert_close(objective.per_datum(at_step(particles, step)), expected)
    annealed = ppvae.annealed_vae(capacity=2.0, steps=10, gamma=3.0)
    loss = annealed.per_datum(at_step(particles, 5))
    torch.testing.assert_close(loss, distortion + 3 * (rate.mean() - 1.0).abs())


@pytest.mark.parametrize("term", [ppvae.KLWeight(2.0, site="w"), ppvae.Capacity(1.0, site="w")])
def test_term_of_the_rate_refuses_a_site_that_the_pair_does_not_have(term):
    with pytest.raises(ppvae.ContractError, match=r"expected a part 'rate/w' to replace, got \['distortion', 'rate/z'"):
        (ppvae.ELBO() + term).per_datum(particles_of())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ppvae.KLWeight(-1.0), "weight of at least 0, got -1"),
        (lambda: ppvae.KLWeight(math.nan), "got nan"),
        (lambda: ppvae.KLWeight(math.inf), "weight of at least 0, got inf"),
        (lambda: ppvae.Capacity(-1.0), "capacity of at least 0"),
        (lambda: ppvae.Capacity(1.0, gamma=-1.0), "gamma of at least 0"),
    ],
)
def test_term_of_the_rate_refuses_weights_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_kl_weight_refuses_the_observed_site():
    model, guide, x = PAIRS["gaussian_vae"].make()
    with pytest.raises(ppvae.ContractError, match="'rate/x' to replace"):
        (ppvae.ELBO() + ppvae.KLWeight(2.0, site="x")).loss(model, guide, x)
