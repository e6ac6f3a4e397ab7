"""A latent vector and a decoder, on complete and on incomplete data."""

import pytest
import torch

import ppvae
from ppvae.distributions.likelihoods import Bernoulli, Categorical, DiscretizedLogistic, Gaussian
from ppvae.guides import MeanFieldGaussian
from ppvae.models import GaussianVAE
from ppvae.nn import MLP, ConvEncoder, FillMissing

LIKELIHOODS = {
    "bernoulli": (lambda: Bernoulli(missing=True), ()),
    "gaussian": (lambda: Gaussian(0.5, learned=True, missing=True), ()),
    "categorical": (lambda: Categorical(2, missing=True), (2,)),
    "discretized_logistic": (lambda: DiscretizedLogistic(2, missing=True), ()),
}


def pair(name: str) -> tuple[GaussianVAE, MeanFieldGaussian, torch.Tensor]:
    torch.manual_seed(0)
    make, levels = LIKELIHOODS[name]
    model = GaussianVAE(MLP(2, [8], (8, 8, *levels)), 2, make()).double()
    guide = MeanFieldGaussian(FillMissing(ConvEncoder((2, 8, 8), [4, 4], 4))).double()
    x = torch.rand(6, 8, 8).round().double()
    return model, guide, x.masked_fill(torch.rand(6, 8, 8) < 0.5, torch.nan)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_pairs_train_on_incomplete_data(name):
    model, guide, x = pair(name)
    ppvae.check_pair(model, guide, x)
    loss = ppvae.IWAE(3).differentiable_loss(model, guide, x)
    loss.backward()
    assert torch.isfinite(loss)
    gradients = [parameter.grad for module in (model, guide) for parameter in module.parameters()]
    assert all(torch.isfinite(gradient).all() and gradient.abs().max() > 0 for gradient in gradients)


def test_log_density_of_incomplete_data_does_not_depend_on_unseen_values():
    model, _, x = pair("bernoulli")
    z = torch.zeros(6, 2).double()
    complete = GaussianVAE(model.decoder, 2, Bernoulli())
    seen = model.decode(z, 2).log_prob(x)
    elements = complete.likelihood(model.decoder(z), 0)
    for filling in (0.0, 1.0):
        every = elements.log_prob(x.nan_to_num(filling))
        torch.testing.assert_close(seen, torch.where(x.isnan(), 0.0, every).sum((1, 2)))


def test_a_likelihood_without_missing_refuses_nan():
    _, guide, x = pair("bernoulli")
    with pytest.raises(ppvae.ContractError, match="missing=True"):
        ppvae.check_pair(GaussianVAE(MLP(2, [8], (8, 8)), 2).double(), guide, x)
