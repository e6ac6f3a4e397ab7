"""Pairs as a user writes them: other names of latents, conditions, and nothing taken from ppvae.models."""

import pyro
import torch
from pyro import distributions as dist
from pyro.nn import PyroModule
from torch import nn

import ppvae
from ppvae.distributions.gaussians import diagonal_normal, standard_normal
from ppvae.guides import MeanFieldGaussian
from ppvae.nn import MLP, LabelledMLP


class UserModel(PyroModule):
    """A user's own pair: two latents, neither of them named z, nothing taken from ppvae."""

    def __init__(self):
        super().__init__(name="user_model")
        self.net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 5))

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            shape = pyro.sample("shape", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            size = pyro.sample("size", dist.LogNormal(shape.sum(-1) * 0.1, 1.0))
            mean = self.net(torch.cat([shape, size.unsqueeze(-1)], -1))
            pyro.sample("x", dist.Normal(mean, 0.5).to_event(1), obs=x)


class UserGuide(PyroModule):
    def __init__(self):
        super().__init__(name="user_guide")
        self.net = nn.Linear(5, 6)

    def forward(self, x, y=None):
        loc, log_scale = self.net(x).chunk(2, -1)
        with pyro.plate("data", len(x)):
            shape = pyro.sample("shape", dist.Normal(loc[..., :2], log_scale[..., :2].exp()).to_event(1))
            pyro.sample("size", dist.LogNormal(loc[..., 2] + 0.1 * shape.sum(-1), log_scale[..., 2].exp()))


class ConditionalModel(ppvae.Model):
    """p(z) p(x | z, c) with a real-valued condition c of two elements."""

    def __init__(self, latent_dim):
        super().__init__()
        self.latent_dim, self.net = latent_dim, MLP(latent_dim + 2, [8], 5)

    def forward(self, x, y=None, *, c):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", standard_normal(x, self.latent_dim))
            mean = self.net(torch.cat([z, c.expand(*z.shape[:-1], 2)], -1))
            pyro.sample("x", dist.Normal(mean, 0.5).to_event(1), obs=x)


class ConditionalGuide(MeanFieldGaussian):
    """q(z | x, c)."""

    def encode(self, x, y=None, *, c):
        return self.encoder(torch.cat([x, c], -1))


class ClassConditionalModel(ppvae.Model):
    """p(z) p(x | z, y): the class is a condition, and no site."""

    def __init__(self, latent_dim, num_classes):
        super().__init__()
        self.latent_dim, self.net = latent_dim, LabelledMLP(latent_dim, num_classes, [8], 5)

    def forward(self, x, y):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", standard_normal(x, self.latent_dim))
            pyro.sample("x", dist.Normal(self.net(z, y), 0.5).to_event(1), obs=x)


class ClassConditionalGuide(MeanFieldGaussian):
    """q(z | x, y)."""

    def encode(self, x, y):
        return self.encoder(x, y)


class TwoConditionsModel(ppvae.Model):
    """p(top | a) p(low | top, b) p(x | low): each latent has a condition of its own."""

    def __init__(self):
        super().__init__()
        self.top, self.low, self.out = nn.Linear(1, 2), nn.Linear(2 + 1, 3), MLP(3, [8], 5)

    def forward(self, x, y=None, *, a, b):
        with pyro.plate("data", len(x)):
            top = pyro.sample("top", dist.Normal(self.top(a), 1.0).to_event(1))
            above = torch.cat([top, b.expand(*top.shape[:-1], 1)], -1)
            low = pyro.sample("low", dist.Normal(self.low(above), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.out(low), 0.5).to_event(1), obs=x)


class TwoConditionsGuide(ppvae.Guide):
    """q(top | x, a) q(low | x, top, b)."""

    def __init__(self):
        super().__init__()
        self.top, self.low = nn.Linear(5 + 1, 2 * 2), nn.Linear(5 + 2 + 1, 2 * 3)

    def forward(self, x, y=None, *, a, b):
        with pyro.plate("data", len(x)):
            top = pyro.sample("top", diagonal_normal(self.top(torch.cat([x, a], -1))))
            known = torch.cat([x, b], -1).expand(*top.shape[:-1], -1)
            pyro.sample("low", diagonal_normal(self.low(torch.cat([known, top], -1))))
