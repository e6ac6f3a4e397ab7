"""Draws of the model and reconstructions."""

import numpy as np
import pyro
import pytest
import torch
from pyro import distributions as dist

import ppvae
from ppvae.evaluation import reconstruct, sample
from ppvae.guides import FlowGuide, MeanFieldGaussian
from ppvae.guides.flow import Reversed
from ppvae.nn import MLP
from tests.catalogue import ALL_PAIRS, LABELS, PAIRS
from tests.ppvae.oracles import ExactTwoLayers, Meanless, Walk, labelled_linear, linear_gaussian


@pytest.mark.parametrize("name", ALL_PAIRS)
def test_sample_finds_the_shape_of_x_of_every_model(name):
    model, _, batch = ALL_PAIRS[name].make_batch()
    found = sample(model, len(batch), batch.y, **batch.given)
    assert found.shape == batch.x.shape
    assert found.dtype == batch.x.dtype
    assert torch.isfinite(found).all()
    assert torch.equal(found, sample(model, len(batch), batch.y, template=batch, **batch.given))


@pytest.mark.parametrize("num_samples", [1, 2, 5, 7])
def test_sample_finds_the_shape_of_x_whatever_the_number_of_samples(num_samples):
    assert sample(PAIRS["label"].make()[0], num_samples).shape == (num_samples, 8, 8)
    assert sample(Walk(), num_samples).shape == (num_samples,)
    assert sample(PAIRS["mixture"].make()[0], np.int64(num_samples)).shape == (num_samples, 5)


def test_sample_has_the_mean_and_the_covariance_of_the_evidence():
    model, _ = linear_gaussian()
    x = sample(model, 20_000)
    covariance = (model.weight @ model.weight.T + model.log_scale.exp() ** 2 * torch.eye(5)).detach()
    assert ((x.mean(0) - model.bias).abs() < 4 * (covariance.diagonal() / 20_000) ** 0.5).all()
    variance = covariance.diagonal()
    error = ((variance[:, None] * variance + covariance**2) / 20_000) ** 0.5
    assert ((torch.cov(x.T) - covariance).abs() < 4.5 * error).all()


def test_sample_is_independent_of_the_draws_of_an_evaluator_with_the_same_seed():
    """With the same numbers for z and for the first draw of q the mutual information is off by .7."""
    torch.manual_seed(0)
    model = ppvae.models.LinearGaussian(torch.eye(2), torch.zeros(2), 1.0)
    guide = MeanFieldGaussian(MLP(2, [], 4))
    with torch.no_grad():
        guide.encoder.layers[0].weight.copy_(torch.cat([torch.eye(2) / 2, torch.zeros(2, 2)]))
        guide.encoder.layers[0].bias.copy_(torch.tensor([0.0, 0.0, *2 * [0.5 * np.log(0.5)]]))
    found = ppvae.latent_statistics(model, guide, sample(model, 3000, seed=4), seed=4)
    assert found.mutual_information == pytest.approx(np.log(2), abs=0.05)


def test_sample_draws_labels_or_takes_them():
    model, _ = labelled_linear()
    bias = model.decoder(torch.zeros(3, 2).double(), torch.arange(3)).detach()
    x = sample(model, 2000, torch.full((2000,), 1))
    assert ((x.mean(0) - bias[1]).abs() < 4 * x.std(0) / 2000**0.5).all()
    x = sample(model, 6000)
    assert ((x.mean(0) - bias.mean(0)).abs() < 4 * x.std(0) / 6000**0.5).all()


class OfItsShape(ppvae.Model):
    """A model that reads the shape of x."""

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros_like(x), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


def test_sample_needs_a_template_for_a_model_that_reads_the_shape_of_x():
    with pytest.raises(ppvae.ContractError, match=r"depends on the shape of x; pass template=x"):
        sample(OfItsShape(), 4)
    for template in (torch.zeros(1, 7), np.zeros((3, 7), np.float32), ppvae.Dataset(torch.zeros(2, 7))):
        assert sample(OfItsShape(), 4, template=template).shape == (4, 7)


def test_sample_refuses_what_is_no_model_and_no_number():
    model, _ = linear_gaussian()
    with pytest.raises(ppvae.ContractError, match="got the class LinearGaussian itself"):
        sample(type(model), 3)
    with pytest.raises(TypeError, match=r"num_samples to be a whole number, got 2\.5"):
        sample(model, 2.5)
    with pytest.raises(ValueError, match="num_samples of at least 1, got 0"):
        sample(model, 0)


def test_sample_leaves_random_state_and_parameter_store_alone():
    model, _ = linear_gaussian()
    state = torch.get_rng_state()
    assert torch.equal(sample(model, 3, seed=1), sample(model, 3, seed=1))
    assert not torch.equal(sample(model, 3, seed=1), sample(model, 3, seed=2))
    assert torch.equal(torch.get_rng_state(), state)
    assert not list(pyro.get_param_store().keys())


@pytest.mark.parametrize("name", ALL_PAIRS)
def test_reconstruct_has_the_shape_of_x_for_every_pair(name):
    model, guide, batch = ALL_PAIRS[name].make_batch()
    for kind in ALL_PAIRS[name].kinds(batch).values():
        assert reconstruct(model, guide, kind).shape == batch.x.shape
        assert reconstruct(model, guide, kind, num_samples=3).shape == (3, *batch.x.shape)


def test_reconstruct_is_the_decoder_at_the_mean_and_at_draws():
    model, guide, x = PAIRS["gaussian_vae"].make()
    torch.testing.assert_close(reconstruct(model, guide, x), model.decode(ppvae.features(guide, x), 2).mean.detach())
    draws = reconstruct(model, guide, x, num_samples=4000)
    z = guide.distribution(guide.encode(x)).sample((4000,))
    expected = model.decode(z, 2).mean.detach()
    error = (draws.var(0) + expected.var(0)) ** 0.5 / 4000**0.5
    assert ((draws.mean(0) - expected.mean(0)).abs() < 4.5 * error).all()


def test_reconstruct_goes_down_the_layers_by_their_means():
    model, _, x = PAIRS["bottom_up"].make()
    guide = ExactTwoLayers(model)
    with torch.no_grad():
        exact = ppvae.features(guide, x, site="z1") @ model.decoder.layers[0].weight.T + model.decoder.layers[0].bias
    torch.testing.assert_close(reconstruct(model, guide, x), exact)


def test_reconstruct_takes_known_labels_and_the_most_probable_class_elsewhere():
    model, guide, x = PAIRS["label_style"].make()
    best = ppvae.predict(guide, x).argmax(-1)
    y = torch.where(LABELS >= 0, LABELS, best)
    z = ppvae.features(guide, x, y)
    torch.testing.assert_close(reconstruct(model, guide, x, LABELS), model.decode(z, y, 2).mean.detach())


def test_reconstruct_takes_a_mean_without_formula_from_draws():
    model, x = linear_gaussian()
    guide = MeanFieldGaussian(MLP(5, [], 4)).double()
    flow = FlowGuide(guide.encoder, [Reversed(), Reversed()], 2).double()
    exact, found = (reconstruct(model, q, x, seed=2) for q in (guide, flow))
    scale = guide.distribution(guide.encode(x)).stddev @ model.weight.T.abs()
    assert ((found - exact).abs() < 5 * scale / 32**0.5).all()
    assert not torch.equal(found, exact)


def test_reconstruct_draws_x_where_it_has_no_mean():
    model, guide, x = Meanless(), MeanFieldGaussian(MLP(2, [], 4)), torch.zeros(3, 2)
    found = reconstruct(model, guide, x)
    assert (found - ppvae.features(guide, x)).abs().max() < 0.06
    assert not torch.equal(found, reconstruct(model, guide, x, seed=1))
