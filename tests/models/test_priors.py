"""Priors: densities against their definitions, and the parameters that learn through them."""

import copy

import pytest
import torch

import ppvae
from ppvae.evaluation.likelihood.annealing import Annealing
from ppvae.guides import FlowGuide, MeanFieldGaussian, planar
from ppvae.models import AutoregressiveFlow, GaussianVAE, MixtureOfGaussians, VampPrior
from ppvae.nn import MLP


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
