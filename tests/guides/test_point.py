"""The point mass: what takes it and what refuses it."""

import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO

import ppvae
from ppvae.distributions.likelihoods import Gaussian
from ppvae.guides import PointGuide, Refined
from ppvae.models import FullMixture, GaussianVAE
from ppvae.nn import MLP
from tests.catalogue import POINT_PAIRS
from tests.ppvae.evaluation.evaluators import ESTIMATES


def pair():
    return POINT_PAIRS["autoencoder"].make()


def test_point_guide_draws_the_encoders_output():
    model, guide, x = pair()
    particles = ppvae.draw(model, guide, x, num_particles=3)
    codes = guide.encoder(x)
    torch.testing.assert_close(particles.guide["z"].value, codes.expand(3, -1, -1))
    torch.testing.assert_close(ppvae.features(guide, x), codes)
    expected = model.decode(codes, 2).mean
    torch.testing.assert_close(ppvae.reconstruct(model, guide, x), expected)
    torch.testing.assert_close(ppvae.reconstruct(model, guide, x, num_samples=2), expected.expand(2, -1, -1, -1))


def test_reconstruction_of_a_point_guide_with_variance_one_half_is_the_squared_error():
    torch.manual_seed(0)
    model, guide = GaussianVAE(MLP(2, [], 5), 2, Gaussian(0.5**0.5)).double(), PointGuide(MLP(5, [], 2)).double()
    x = torch.randn(6, 5).double()
    error = (x - model.decoder(guide.encoder(x))).square().sum(-1)
    loss = ppvae.Reconstruction().per_datum(ppvae.draw(model, guide, x))
    constant = 2.5 * torch.tensor(torch.pi).log().item()
    torch.testing.assert_close(loss, error + constant, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ESTIMATES)
def test_evaluator_that_weighs_q_refuses_a_point_guide(name):
    with pytest.raises(ppvae.ContractError, match="point mass, which has no density: the weights p/q do not exist"):
        ESTIMATES[name](*pair())


@pytest.mark.parametrize("steps", [0, 2])
def test_refined_refuses_a_point_guide(steps):
    model, guide, x = pair()
    with pytest.raises(ppvae.ContractError, match="point mass"):
        ppvae.draw(model, Refined(guide, model, steps), x)


def test_dip_penalty_of_a_point_guide_is_that_of_its_codes():
    model, guide, x = pair()
    codes = guide.encoder(x)
    covariance = torch.cov(codes.T, correction=0)
    others = covariance.square().sum() - covariance.diagonal().square().sum()
    expected = 2 * others + 3 * (covariance.diagonal() - 1).square().sum()
    for of_draws in (False, True):
        term = ppvae.DIPPenalty(2.0, 3.0, of_draws)
        torch.testing.assert_close(term.penalty(ppvae.draw(model, guide, x)), expected)


def test_traversals_move_the_code_of_a_point_guide():
    model, guide, x = pair()
    moved = ppvae.traversals(model, guide, x[:1], values=(0.0, 1.0))
    code = guide.encoder(x[:1])[0].clone()
    code[1] = 1.0
    torch.testing.assert_close(moved[1, 1], model.decode(code, 2).mean)


def test_autoencoder_with_a_fitted_prior_is_sampled_from_it():
    model, guide, x = pair()
    model.prior = FullMixture.fit(ppvae.features(guide, x), components=1)
    assert ppvae.sample(model, 4).shape == (4, 8, 8)
    with pytest.raises(ppvae.ContractError, match="point mass"):
        ppvae.log_marginal(model, guide, x)


@pytest.mark.parametrize("estimator", [Trace_ELBO, TraceMeanField_ELBO])
def test_fit_by_pyros_estimators_refuses_a_point_mass(estimator):
    model, guide, x = pair()
    with pytest.raises(ppvae.ContractError, match="point mass"):
        ppvae.fit(model, guide, estimator(), x, epochs=1, progress=False)
