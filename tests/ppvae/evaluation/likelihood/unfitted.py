"""Pairs with latents to which no Gaussian can be fitted."""

import pyro
import torch
from pyro import distributions as dist
from torch import nn

from ppvae.engine.contract import Guide, Model


class WithCount(Model):
    """A count, which no sum can enumerate, shifts a Gaussian."""

    def __init__(self):
        super().__init__()
        self.rate = nn.Parameter(torch.ones(()).double())

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            n = pyro.sample("n", dist.Poisson(self.rate))
            z = pyro.sample("z", dist.Normal(n, 1.0))
            pyro.sample("x", dist.Normal(z, 0.1), obs=x)


class CountGuide(Guide):
    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            pyro.sample("n", dist.Poisson(x.abs() + 0.1))
            pyro.sample("z", dist.Normal(x, 0.3))


class OneSite(Model):
    """A latent of some distribution on two elements."""

    def __init__(self, prior):
        super().__init__()
        self.prior, self.one = prior, nn.Parameter(torch.ones(()).double())

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.prior(x))
            pyro.sample("x", dist.Normal(z, self.one).to_event(1), obs=x)


class SameSite(Guide):
    def __init__(self, posterior):
        super().__init__()
        self.posterior = posterior

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.posterior(x))


def angle(x):
    return dist.VonMises(torch.zeros_like(x), 1.0).to_event(1)
