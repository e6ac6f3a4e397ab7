"""A small autoencoder, and its penalties."""

import torch
from torch import nn

import ppvae
from ppvae.distributions.likelihoods import Gaussian
from ppvae.guides import PointGuide
from ppvae.models import GaussianVAE
from ppvae.nn import MLP


def autoencoder(last=nn.Identity):
    """A small autoencoder of vectors of length 5, and data."""
    torch.manual_seed(0)
    guide = PointGuide(nn.Sequential(MLP(5, [8], 3, nn.Tanh), last()))
    model = GaussianVAE(MLP(3, [8], 5, nn.Tanh), 3, Gaussian(0.5**0.5))
    return model.double(), guide.double(), torch.randn(6, 5).double()


def penalty_of(term, model, guide, x, num_particles=1):
    return term.penalty(ppvae.draw(model, guide, x, num_particles=num_particles))


def assert_mean_is(by_probes, exact):
    """The mean of a penalty by random probes is the exact penalty, within four standard errors of 20,000 rows."""
    model, guide, x = autoencoder()
    many = x[:1].expand(20_000, 5)
    found = penalty_of(by_probes, model, guide, many)
    expected = penalty_of(exact, model, guide, x[:1])
    assert abs(found.mean() - expected[0]) < 4 * found.std() / len(many) ** 0.5
