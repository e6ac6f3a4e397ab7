"""Losses and gradients of an objective under many random numbers, for the tests of the objectives."""

import pyro
import torch
from pyro import distributions as dist
from torch import nn

import ppvae
from ppvae.engine.contract import Guide
from ppvae.models import LinearGaussian
from tests.catalogue import PAIRS
from tests.ppvae.oracles import linear_gaussian


def gradient(objective, model, guide, x, y=None, of=None, seed=0):
    """The gradient of the summed loss by the guide's parameters (or those of ``of``), as one vector."""
    torch.manual_seed(seed)
    parameters = [p for p in (of or guide).parameters() if p.requires_grad]
    loss = objective.differentiable_loss(model, guide, x, y)
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    return torch.cat([(p * 0 if g is None else g).flatten() for g, p in zip(gradients, parameters, strict=True)])


def gradients(objective, model, guide, x, y=None, of=None, repeats=150):
    """:func:`gradient` of many seeds, one a row."""
    return torch.stack([gradient(objective, model, guide, x, y, of, seed) for seed in range(repeats)])


def assert_same_mean(a, b, deviations=5.0):
    """Of two independent samples of vectors, one a row; 5 deviations for about a hundred coordinates."""
    error = (a.var(0) / len(a) + b.var(0) / len(b)).sqrt()
    assert ((a.mean(0) - b.mean(0)).abs() <= deviations * error + 1e-12).all()


def loss(objective, model, guide, x, y=None, seed=0):
    """The loss of each datum."""
    torch.manual_seed(seed)
    return objective.per_datum(ppvae.draw(model, guide, x, y, objective.num_particles))


class Rows(Guide):
    """A free mean-field Gaussian for each datum."""

    def __init__(self, loc, scale):
        super().__init__()
        self.loc, self.log_scale = nn.Parameter(loc.clone()), nn.Parameter(scale.log())

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.loc, self.log_scale.exp()).to_event(1))


def rows(repeats=4000):
    """One datum many times, each with parameters of its own: the gradient's rows are independent samples."""
    model, x = linear_gaussian()
    posterior = model.posterior(x[:1])
    loc = (posterior.mean + 0.4).expand(repeats, -1)
    scale = (posterior.stddev * 1.3).expand(repeats, -1)
    return model, Rows(loc.detach(), scale.detach()), x[:1].expand(repeats, -1)


def one_latent(repeats=40_000):
    """One datum many times, with one latent, where integrals over draws are sums over Gauss-Hermite nodes."""
    model = LinearGaussian(torch.tensor([[1.2], [-0.4]]), torch.tensor([0.3, 0.1]), 0.8).double()
    x = torch.tensor([[1.0, -0.5]]).double()
    posterior = model.posterior(x)
    loc, scale = (posterior.mean + 0.3).detach(), (posterior.stddev * 1.4).detach()
    return model, Rows(loc.expand(repeats, -1), scale.expand(repeats, -1)), x.expand(repeats, -1)


def per_row(objective, model, guide, x):
    """The gradient by each row's own parameters, one a row."""
    torch.manual_seed(0)
    return torch.cat(torch.autograd.grad(objective.differentiable_loss(model, guide, x), [*guide.parameters()]), -1)


def particles_of(pair="gaussian_vae", num_particles=2, y=None):
    model, guide, x = PAIRS[pair].make()
    torch.manual_seed(3)
    return ppvae.draw(model, guide, x, y, num_particles)


def distortion_and_rate(particles):
    """The two parts of the ELBO, each (B,), by their definitions."""
    return particles.average(-particles.log_likelihood), sum(particles.kl(name) for name in particles.guide)


def plain_functions():
    """A model and a guide that are functions, with ``pyro.module``, as Pyro's first tutorials write them."""
    torch.manual_seed(0)
    decoder, encoder = nn.Linear(2, 5).double(), nn.Linear(5, 4).double()

    def model(x, y=None):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), 1.0).to_event(1), obs=x)

    def guide(x, y=None):
        pyro.module("encoder", encoder)
        loc, log_scale = encoder(x).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

    return model, guide, decoder, encoder
