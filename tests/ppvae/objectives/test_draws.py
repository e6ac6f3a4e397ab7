"""What statistics of a batch read of a latent, and where they refuse it."""

import math
from functools import partial

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro.nn import PyroModule

import ppvae
from ppvae.nn import MLP
from ppvae.objectives.draws import cross_log_prob, draws, factors, mean_by_formula, moments, prior, prior_draws, vector
from tests.catalogue import ALL_PAIRS, PAIRS
from tests.ppvae.objectives.estimates import particles_of

BATCH_STATISTICS = {
    "TotalCorrelation": partial(ppvae.TotalCorrelation, 1.0, latent_dim=3),
    "TCDecomposition": partial(ppvae.TCDecomposition, 10),
    "DIPPenalty": partial(ppvae.DIPPenalty, 1.0, 1.0, of_draws=False),
    "MaximumMeanDiscrepancy": partial(ppvae.MaximumMeanDiscrepancy, 1.0),
    "SteinDiscrepancy": partial(ppvae.SteinDiscrepancy, 1.0),
    "AdversarialDivergence": partial(ppvae.AdversarialDivergence, 1.0, latent_dim=3),
}


def apply(term, particles):
    return (ppvae.ELBO() + term).parts(particles)


@pytest.mark.parametrize("term", BATCH_STATISTICS)
def test_batch_statistic_refuses_a_site_that_the_pair_does_not_have(term):
    message = r"(name of a latent site, got 'w'.*\['z'\]|a part 'rate/w' to replace)"
    with pytest.raises(ppvae.ContractError, match=message):
        apply(BATCH_STATISTICS[term](site="w"), particles_of())


@pytest.mark.parametrize("term", BATCH_STATISTICS)
def test_batch_statistic_refuses_a_batch_of_one(term):
    model, guide, x = PAIRS["gaussian_vae"].make()
    with pytest.raises(ppvae.ContractError, match=r"batch of at least 2 data.*'z'.*got 1"):
        apply(BATCH_STATISTICS[term](), ppvae.draw(model, guide, x[:1]))


@pytest.mark.parametrize("term", BATCH_STATISTICS)
def test_batch_statistic_refuses_a_latent_that_is_drawn_for_each_class(term):
    with pytest.raises(ppvae.ContractError, match=r"depends on no (enumerated one|other), got 'z'"):
        apply(BATCH_STATISTICS[term](), particles_of("label_style"))


@pytest.mark.parametrize("term", BATCH_STATISTICS)
def test_batch_statistic_refuses_a_latent_that_is_no_vector(term):
    with pytest.raises(ppvae.ContractError, match=r"event shape \(D,\), got 'size'|depends on no other, got 'size'"):
        apply(BATCH_STATISTICS[term](site="size"), particles_of("user"))


@pytest.mark.parametrize("term", BATCH_STATISTICS)
def test_batch_statistic_refuses_a_latent_under_a_mask(term):
    model, guide, x = PAIRS["gaussian_vae"].make()
    mask = torch.arange(len(x)) < 4
    masked = (pyro.poutine.mask(function, mask) for function in (model, guide))
    with pytest.raises(ppvae.ContractError, match="'z' under a mask"):
        apply(BATCH_STATISTICS[term](), ppvae.draw(*masked, x))


@pytest.mark.parametrize("term", ["MaximumMeanDiscrepancy", "TCDecomposition", "SteinDiscrepancy"])
def test_batch_statistic_refuses_a_prior_that_depends_on_another_latent(term):
    particles = particles_of("bottom_up")
    message = r"depends on no other, got 'z1', .*; the model draws z2, z1"
    with pytest.raises(ppvae.ContractError, match=message):
        apply(BATCH_STATISTICS[term](site="z1"), particles)


def test_batch_statistic_takes_the_first_latent_of_a_hierarchy():
    particles = particles_of("bottom_up")
    assert torch.isfinite(ppvae.MaximumMeanDiscrepancy(1.0, site="z2").penalty(particles))


class Independent(PyroModule):
    """Two independent latents with different priors; in the model and in the guide."""

    def __init__(self, loc: float, learns: bool):
        super().__init__()
        self.loc, self.learns = loc, learns

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            for name, place in {"a": 0.0, "b": self.loc}.items():
                loc = x if self.learns else torch.full_like(x, place)
                z = pyro.sample(name, dist.Normal(loc, 0.5).to_event(1))
            if not self.learns:
                pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


@pytest.mark.parametrize("term", sorted(BATCH_STATISTICS.keys() - {"DIPPenalty"}))
def test_batch_statistic_takes_a_second_latent_with_a_prior_of_its_own(term):
    particles = ppvae.draw(Independent(2.0, False), Independent(2.0, True), torch.randn(8, 3), num_particles=2)
    parts = apply(BATCH_STATISTICS[term](site="b"), particles)
    assert all(torch.isfinite(part).all() for part in parts.values())


def test_batch_statistic_does_not_mind_a_label_before_the_latent():
    particles = particles_of("label")
    assert torch.isfinite(ppvae.info_vae(0.0, 10.0).per_datum(particles)).all()


def test_stein_discrepancy_refuses_a_prior_that_changes_with_conditions():
    """It compares q(z) with one density; draws of the prior of each datum are draws of their mixture."""
    model, guide, batch = ALL_PAIRS["two_conditions"].make_batch()
    particles = ppvae.draw(model, guide, batch, num_particles=2)
    with pytest.raises(ppvae.ContractError, match=r"one prior of 'top' for all data.*MaximumMeanDiscrepancy"):
        ppvae.SteinDiscrepancy(1.0, site="top").penalty(particles)
    assert torch.isfinite(ppvae.MaximumMeanDiscrepancy(1.0, site="top").penalty(particles))


def test_stein_discrepancy_takes_a_prior_that_conditions_do_not_move():
    for name in ("conditional", "labelled_condition"):
        model, guide, batch = ALL_PAIRS[name].make_batch()
        assert torch.isfinite(ppvae.SteinDiscrepancy(1.0).penalty(ppvae.draw(model, guide, batch)))


# what is read


def test_draws_are_one_sample_of_the_aggregate_posterior_for_each_particle():
    particles = particles_of(num_particles=4)
    assert torch.equal(draws(particles, "z"), particles.draws["z"])
    assert draws(particles, "z").shape == (4, 6, 3)


def test_draws_of_a_pair_with_classes_drop_the_dimension_of_enumeration():
    particles = particles_of("label", num_particles=4)
    assert draws(particles, "z").shape == (4, 6, 3)
    assert prior_draws(particles, "z").shape == (4, 6, 3)


def test_prior_draws_are_draws_of_the_prior():
    model, guide, x = PAIRS["gaussian_vae"].make()
    particles = ppvae.draw(model, guide, x, num_particles=5000)
    z = prior_draws(particles, "z").flatten(0, 1)
    assert z.mean(0).abs().max() < 4 / len(z) ** 0.5
    assert (z.T.cov() - torch.eye(3)).abs().max() < 6 / len(z) ** 0.5


def test_prior_is_the_models_distribution():
    particles = particles_of()
    assert prior(particles, "z") is particles.model["z"].distribution


def test_factors_are_the_densities_of_the_elements():
    particles = particles_of()
    z = particles.draws["z"]
    whole = particles.guide["z"].distribution.log_prob(z)
    torch.testing.assert_close(factors(particles, "z").log_prob(z).sum(-1), whole)


def test_factors_refuse_a_density_that_is_no_product():
    with pytest.raises(ppvae.ContractError, match=r"q\(z \| x\) as a product of densities.*use MeanFieldGaussian"):
        factors(particles_of("full_rank"), "z")


@pytest.mark.parametrize("pair", ["linear_gaussian", "full_rank"])
def test_moments_are_those_of_draws(pair):
    particles = particles_of(pair)
    mean, within = moments(particles, "z")
    z = particles.guide["z"].distribution.sample((100_000,))[:, 0]
    centred = z - z.mean(0)
    covariance = (centred.unsqueeze(-1) * centred.unsqueeze(-2)).mean(0)
    assert mean.shape == (2, 6, 2)
    assert within.shape == (2, 6, 2, 2)
    torch.testing.assert_close(mean[0], z.mean(0), rtol=0.02, atol=0.03)
    torch.testing.assert_close(within[0], covariance, rtol=0.03, atol=0.03)


def test_moments_refuse_a_latent_that_depends_on_a_draw():
    with pytest.raises(ppvae.ContractError, match="guide draws first, 'z1', got 'z2'"):
        moments(particles_of("bottom_up"), "z2")


def test_moments_refuse_a_guide_without_a_formula():
    with pytest.raises(ppvae.ContractError, match=r"with a formula for its mean and covariance.*MeanFieldGaussian or"):
        moments(particles_of("flow_planar"), "z")


def test_cross_log_prob_scores_every_draw_under_every_posterior():
    particles = particles_of()
    z, fn = draws(particles, "z"), particles.guide["z"].distribution
    found = cross_log_prob(fn, z)
    q = fn.base_dist
    expected = torch.stack(
        [
            torch.stack(
                [dist.Normal(q.loc[0, j], q.scale[0, j]).log_prob(z[k, i]).sum(-1) for i in range(6) for j in range(6)]
            ).reshape(6, 6)
            for k in range(2)
        ]
    )
    torch.testing.assert_close(found, expected)


# gradients


TERMS = {
    "kl": lambda: ppvae.KLWeight(3.0),
    "capacity": lambda: ppvae.Capacity(0.5, gamma=3.0),
    "decomposition": lambda: ppvae.TCDecomposition(50, 0.5, 6.0, 2.0),
    "covariance": lambda: ppvae.DIPPenalty(1.0, 2.0, of_draws=True),
    "mmd": lambda: ppvae.MaximumMeanDiscrepancy(3.0),
    "stein": lambda: ppvae.SteinDiscrepancy(3.0),
    "critic": lambda: ppvae.TotalCorrelation(3.0, 3, critic=MLP(3, [8], 1, torch.nn.Tanh).double()),
    "prior critic": lambda: ppvae.AdversarialDivergence(3.0, 3, critic=MLP(3, [8], 1, torch.nn.Tanh).double()),
    "constraint": lambda: ppvae.ConstrainedReconstruction(7.0),
}


@pytest.mark.parametrize("name", TERMS)
def test_gradient_of_a_term_is_that_of_finite_differences(name):
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


def test_vector_takes_a_batch_of_one_and_refuses_what_is_no_vector():
    model, guide, x = PAIRS["gaussian_vae"].make()
    assert vector(ppvae.draw(model, guide, x[:1]), "z").value.shape == (1, 1, 3)
    for pair, site in (("user", "size"), ("mixture", "z"), ("label_style", "z")):
        with pytest.raises(ppvae.ContractError, match=r"expected a (continuous )?latent"):
            vector(particles_of(pair), site)


def test_mean_by_formula_says_what_is_expected_and_how_to_fix_it():
    flow = dist.TransformedDistribution(dist.Normal(0.0, 1.0), [dist.transforms.ExpTransform()])
    with pytest.raises(ppvae.ContractError, match=r"expected q with a formula for its mean, got .*; use a Gaussian"):
        mean_by_formula(flow, "q", "use a Gaussian")
    assert mean_by_formula(dist.LogNormal(0.0, 1.0), "q", "") == pytest.approx(math.exp(0.5))
