"""Penalties on the decoder against autograd."""

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import nn

import ppvae
from tests.catalogue import LABELS, PAIRS
from tests.ppvae.objectives.estimates import particles_of, plain_functions
from tests.ppvae.objectives.terms.autoencoders import assert_mean_is, autoencoder, penalty_of


def matrices(model, z, **options):
    """The Jacobian matrix of the mean of x at each code."""
    return [torch.autograd.functional.jacobian(lambda at: model.decode(at, 1).mean, row, **options) for row in z]


def test_decoder_gradient_is_autograds_jacobian():
    model, guide, x = autoencoder()
    expected = 2.5 * torch.stack([m.square().sum() for m in matrices(model, guide.encoder(x))])
    torch.testing.assert_close(penalty_of(ppvae.DecoderGradient(2.5, None), model, guide, x), expected)
    with torch.no_grad():  # the model is run again
        found = penalty_of(ppvae.DecoderGradient(2.5, None), model, guide, x)
    torch.testing.assert_close(found, expected)


def test_decoder_gradient_trains_decoder_and_encoder():
    model, guide, x = autoencoder()
    parameters = [*model.decoder.parameters(), *guide.parameters()]
    found = penalty_of(ppvae.DecoderGradient(1.0, None), model, guide, x).sum()
    expected = sum(m.square().sum() for m in matrices(model, guide.encoder(x), create_graph=True))
    # autograd.functional.jacobian cuts its input off the encoder, so that its gradient is compared by differences
    of_decoder = [
        torch.autograd.grad(each, model.decoder.layers[0].weight, retain_graph=True) for each in (found, expected)
    ]
    torch.testing.assert_close(*of_decoder)
    gradient = torch.autograd.grad(found, parameters[-1])[0]
    bias, step = guide.encoder[0].layers[-1].bias, 1e-5
    differences = []
    for d in range(3):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                bias[d] += sign * step
                values.append(penalty_of(ppvae.DecoderGradient(1.0, None), model, guide, x).sum())
                bias[d] -= sign * step
        differences.append((values[0] - values[1]) / (2 * step))
    torch.testing.assert_close(gradient, torch.stack(differences), rtol=1e-6, atol=1e-8)


def test_decoder_gradient_by_probes_has_the_exact_mean():
    assert_mean_is(ppvae.DecoderGradient(1.0, num_probes=1), ppvae.DecoderGradient(1.0, None))


def test_decoder_gradient_of_a_linear_decoder_is_the_norm_of_its_weight():
    particles = particles_of("linear_gaussian", num_particles=3)
    expected = particles.source.model.weight.square().sum().expand(len(particles.batch))
    torch.testing.assert_close(ppvae.DecoderGradient(1.0, None).penalty(particles), expected)


def test_decoder_gradient_refuses_enumerated_latents_and_takes_known_labels():
    with pytest.raises(ppvae.ContractError, match=r"continuous latents alone, got \['y', 'z'\]; give labels"):
        ppvae.DecoderGradient(1.0).penalty(particles_of("label"))
    found = ppvae.DecoderGradient(1.0).penalty(particles_of("label", y=LABELS.clamp(min=0)))
    assert found.shape == (6,)


class NoMean(dist.Normal):
    @property
    def mean(self):
        raise NotImplementedError


class WithoutMean(ppvae.Model):
    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
            pyro.sample("x", NoMean(z[..., :1].expand(*z.shape[:-1], 5), 1.0).to_event(1), obs=x)


def test_decoder_gradient_refuses_a_likelihood_without_a_formula_for_its_mean():
    _, guide, x = autoencoder()
    with pytest.raises(ppvae.ContractError, match=r"p\(x \| z\) with a formula for its mean, got .*DecoderWeights"):
        penalty_of(ppvae.DecoderGradient(1.0), WithoutMean(), guide, x)


def test_decoder_weights_are_the_squares_of_the_decoders_parameters():
    model, guide, x = autoencoder()
    vector = nn.utils.parameters_to_vector(model.decoder.parameters())
    torch.testing.assert_close(penalty_of(ppvae.DecoderWeights(2.5), model, guide, x), 2.5 * vector @ vector)


def test_decoder_weights_leave_out_prior_and_likelihood_and_take_all_of_a_model_without_decoder():
    model, guide, x = PAIRS["learned_noise"].make()
    vector = nn.utils.parameters_to_vector(model.decoder.parameters())
    torch.testing.assert_close(penalty_of(ppvae.DecoderWeights(1.0), model, guide, x), vector @ vector)
    model, guide, x = PAIRS["linear_gaussian"].make()
    vector = nn.utils.parameters_to_vector(model.parameters())
    torch.testing.assert_close(penalty_of(ppvae.DecoderWeights(1.0), model, guide, x), vector @ vector)


def test_decoder_weights_refuse_a_model_without_parameters():
    _, guide, x = autoencoder()
    with pytest.raises(ppvae.ContractError, match=r"expected a PyroModule with parameters.*got a WithoutMean"):
        penalty_of(ppvae.DecoderWeights(1.0), WithoutMean(), guide, x)
    model, plain_guide, _, _ = plain_functions()
    with pytest.raises(ppvae.ContractError, match=r"expected a PyroModule with parameters.*got a function"):
        penalty_of(ppvae.DecoderWeights(1.0), model, plain_guide, x)


@pytest.mark.parametrize("make", [ppvae.DecoderWeights, ppvae.DecoderGradient])
def test_penalty_refuses_a_weight_below_zero(make):
    with pytest.raises(ValueError, match="weight of at least 0, got -1"):
        make(-1.0)
