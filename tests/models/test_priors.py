"""Priors: densities against their definitions, and the parameters that learn through them."""

import copy

import pytest
import torch

import ppvae
from ppvae.evaluation.likelihood.annealing import Annealing
from ppvae.guides import FlowGuide, MeanFieldGaussian, PointGuide, planar
from ppvae.models import AutoregressiveFlow, FullMixture, GaussianVAE, MixtureOfGaussians, VampPrior
from ppvae.nn import MLP, JointMLP


def vamp_pair():
    torch.manual_seed(0)
    guide = MeanFieldGaussian(MLP((4, 4), [8], 4)).double()
    prior = VampPrior(guide, torch.rand(5, 4, 4).double())
    return GaussianVAE(MLP(2, [8], (4, 4)), 2, prior=prior).double(), guide, torch.rand(6, 4, 4).double().bernoulli()


def test_vamp_prior_is_the_mean_of_the_posteriors_of_its_pseudo_inputs():
    model, guide, x = vamp_pair()
    z = torch.randn(7, 2).double()
    pseudo = model.prior.logits.sigmoid()
    each = guide.distribution(guide.encoder(pseudo)).log_prob(z.unsqueeze(1))
    torch.testing.assert_close(model.prior(x).log_prob(z), each.logsumexp(1) - torch.tensor(5.0).double().log())


def test_vamp_prior_trains_pseudo_inputs_and_guide_and_shares_no_parameter():
    model, guide, x = vamp_pair()
    ppvae.check_pair(model, guide, x)
    assert not {id(p) for p in model.parameters()} & {id(p) for p in guide.parameters()}
    learned = [model.prior.logits, *guide.parameters()]
    gradients = torch.autograd.grad(ppvae.ELBO().differentiable_loss(model, guide, x), learned)
    assert all(gradient.abs().max() > 0 for gradient in gradients)


def test_annealing_starts_from_a_vamp_prior():
    model, _, x = vamp_pair()
    annealing = Annealing(temperatures=5, chains=2, leapfrog_steps=2)
    assert torch.isfinite(ppvae.ais(model, x, annealing=annealing).value).all()


def test_vamp_prior_holds_its_guide_as_a_partner():
    model, guide, x = vamp_pair()
    assert model.prior.partners == (guide,)
    copied_model, copied_guide = copy.deepcopy((model, guide))
    assert copied_model.prior.partners == (copied_guide,)
    ppvae.check_pair(copied_model, copied_guide, x)
    with pytest.raises(ppvae.ContractError, match="Copy model and guide together"):
        ppvae.check_pair(copy.deepcopy(model), copy.deepcopy(guide), x)


def test_full_mixture_takes_codes_with_an_element_that_is_constant():
    codes = torch.tensor([[0.0, 3.0], [1.0, 3.0], [2.0, 3.0]])
    torch.testing.assert_close(FullMixture.fit(codes.numpy(), 1).locs, torch.tensor([[1.0, 3.0]]))


def test_vamp_prior_refuses_a_point_mass_and_a_guide_with_conditions():
    with pytest.raises(ppvae.ContractError, match="density in VampPrior, got PointGuide"):
        VampPrior(PointGuide(MLP(5, [], 2)), torch.rand(3, 5))(torch.zeros(1))
    with pytest.raises(ValueError, match=r"guide of x alone.*MeanFieldGaussian with the conditions \('c',\)"):
        VampPrior(MeanFieldGaussian(JointMLP([5, 1], [], 4), "c"), torch.rand(3, 5))


def test_vamp_prior_refuses_a_guide_that_cannot_score():
    guide = FlowGuide(MLP(5, [], 7), planar(2, 3), 2)
    with pytest.raises(ValueError, match=r"AmortizedGuide with log_prob at arbitrary values.*FlowGuide"):
        VampPrior(guide, torch.rand(3, 5))


@pytest.mark.parametrize("prior", [MixtureOfGaussians(2, 3), AutoregressiveFlow(2)], ids=lambda p: type(p).__name__)
def test_draws_and_density_of_priors_agree(prior):
    # Both are normalised and agree if E_p [f(z) / p(z)] = 1 for a density f inside p.
    torch.manual_seed(0)
    p = prior.double()(torch.zeros(1).double())
    z = p.sample((100_000,))
    inside = torch.distributions.MultivariateNormal(z.mean(0), 0.3 * z.T.cov())
    ratio = (inside.log_prob(z) - p.log_prob(z)).exp()
    assert ratio.std() < 20
    assert (ratio.mean() - 1).abs() < 4 * ratio.std() / len(z) ** 0.5


def mixture_draws(rows=4000):
    """Draws of two Gaussians far from each other, 3 to 1, with correlated elements."""
    torch.manual_seed(0)
    second = torch.rand(rows) < 0.25
    correlated = torch.randn(rows, 2).double() @ torch.tensor([[1.0, 0.8], [0.0, 0.6]]).double()
    return correlated + torch.where(second, 10.0, 0.0).unsqueeze(-1), second


@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_full_mixture_of_one_component_is_the_gaussian_of_largest_likelihood(scale):
    codes = mixture_draws()[0] * scale
    found = FullMixture.fit(codes, components=1)(codes)
    exact = torch.distributions.MultivariateNormal(codes.mean(0), torch.cov(codes.T, correction=0))
    torch.testing.assert_close(found.log_prob(codes[:5]), exact.log_prob(codes[:5]), rtol=1e-5, atol=1e-5)


def test_full_mixture_finds_separate_gaussians():
    codes, second = mixture_draws()
    prior = FullMixture.fit(codes.float(), components=2, seed=1)
    order = prior.locs[:, 0].argsort()
    assert prior.locs.dtype == torch.float32
    # 1,000 rows and more of each Gaussian: errors of a mean up to 1/sqrt(1000), times 4.
    torch.testing.assert_close(prior.locs[order][1], codes[second].mean(0).float(), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(prior.weights[order][1], second.double().mean().float(), atol=1e-3, rtol=0)
    covariance = (prior.scale_trils @ prior.scale_trils.mT)[order][0]
    torch.testing.assert_close(covariance, torch.cov(codes[~second].T).float(), atol=5e-3, rtol=5e-3)


def test_full_mixture_draws_have_its_density():
    codes, _ = mixture_draws()
    p = FullMixture.fit(codes, components=2)(codes)
    z = p.sample((20_000,))
    torch.testing.assert_close(z.mean(0), p.mean, atol=4 * z.std().item() / 20_000**0.5, rtol=0)
    inside = torch.distributions.MultivariateNormal(codes[:100].mean(0), torch.eye(2).double())
    ratio = (inside.log_prob(z) - p.log_prob(z)).exp()
    assert (ratio.mean() - 1).abs() < 4 * ratio.std() / len(z) ** 0.5


def test_full_mixture_makes_a_vae_that_is_sampled_weighed_and_saved():
    model, guide, x = vamp_pair()
    model.prior = FullMixture.fit(ppvae.features(guide, x.repeat(10, 1, 1)), components=1)
    ppvae.check_pair(model, guide, x)
    assert ppvae.sample(model, 3).shape == (3, 4, 4)
    assert torch.isfinite(ppvae.log_marginal(model, guide, x, num_particles=30).value).all()
    assert {"prior.weights", "prior.locs", "prior.scale_trils"} <= model.state_dict().keys()
    assert not list(model.prior.parameters())


def test_full_mixture_refuses_other_codes_and_shapes():
    for codes in (torch.zeros(5), torch.full((5, 2), torch.nan), torch.zeros(1, 2), torch.ones(5, 2).long()):
        with pytest.raises(ValueError, match=r"expected floating, finite codes \(N, D\), N >= 2, got"):
            FullMixture.fit(codes, 1)
    with pytest.raises(ValueError, match=r"components from 1 to 5, the number of codes, got 6"):
        FullMixture.fit(torch.zeros(5, 2), 6)
    for weights in (torch.ones(3), torch.tensor([1.0, -1.0])):
        with pytest.raises(ValueError, match=r"positive weights \(C,\)"):
            FullMixture(weights, torch.zeros(2, 2), torch.eye(2).expand(2, 2, 2))
    with pytest.raises(ValueError, match=r"scale_trils \(C, D, D\), got \(2,\), \(2, 3\) and \(2, 3\)"):
        FullMixture(torch.ones(2), torch.zeros(2, 3), torch.ones(2, 3))
