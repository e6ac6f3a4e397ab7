"""Oracles of known evidence, and guides that are exact or known to be off."""

import math

import pyro
import torch
from ppvae.guides import MeanFieldGaussian
from ppvae.models import GaussianMixture, LinearGaussian, SemiSupervisedVAE
from pyro import distributions as dist
from torch import nn

from ppvae.distributions.likelihoods import Gaussian
from ppvae.engine.contract import Guide, Model
from ppvae.nn import MLP, LabelledMLP


def linear_gaussian() -> tuple[LinearGaussian, torch.Tensor]:
    torch.manual_seed(0)
    model = LinearGaussian(torch.randn(5, 2), torch.randn(5), 0.7).double()
    return model, torch.randn(4, 5).double()


def gaussian_mixture() -> tuple[GaussianMixture, torch.Tensor]:
    torch.manual_seed(0)
    return GaussianMixture(2 * torch.randn(4, 5), 0.8).double(), torch.randn(6, 5).double()


class Exact(Guide):
    """An oracle's posterior as a guide; its parameters stay the oracle's."""

    def __init__(self, oracle):
        super().__init__()
        self._oracle = [oracle]  # in a list, lest nn.Module register it

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            pyro.sample("z", self._oracle[0].posterior(x))


def nearly_exact(model: LinearGaussian, widen: float = 1.3) -> MeanFieldGaussian:
    """The posterior's mean, with its marginal standard deviations ``widen`` times too large."""
    guide = MeanFieldGaussian(MLP(5, [], 4)).double()
    x = torch.cat([torch.zeros(1, 5), torch.eye(5)]).double()
    posterior = model.posterior(x)
    (layer,) = guide.encoder.layers
    with torch.no_grad():
        layer.bias[:2] = posterior.mean[0]
        layer.weight[:2] = (posterior.mean[1:] - posterior.mean[0]).T
        layer.weight[2:] = 0
        layer.bias[2:] = (posterior.stddev[0] * widen).log()
    return guide


class ExactTwoLayers(Guide):
    """The posterior of ``catalogue.two_layers`` drawn from below, q(z1 | x) q(z2 | z1); its parameters stay its own.

    z2 ~ N(0, I), z1 ~ N(A z2 + a, D), x ~ N(C z1 + c, s^2 I).
    """

    def __init__(self, oracle):
        super().__init__()
        self._oracle = [oracle]

    def forward(self, x, y=None):
        (oracle,) = self._oracle
        (down,), (out,) = oracle.conditionals[0].layers, oracle.decoder.layers
        above, loc, precision = down.weight[:3], down.bias[:3], (-2 * down.bias[3:]).exp().diag()
        noise = (-2 * oracle.likelihood.log_scale).exp()
        prior = torch.linalg.inv(above @ above.T + torch.linalg.inv(precision))
        below = torch.linalg.inv(prior + noise * out.weight.T @ out.weight)
        top = torch.linalg.inv(torch.eye(2).to(x) + above.T @ precision @ above)
        with pyro.plate("data", len(x)):
            mean = (loc @ prior + noise * (x - out.bias) @ out.weight) @ below
            z1 = pyro.sample("z1", dist.MultivariateNormal(mean, below))
            pyro.sample("z2", dist.MultivariateNormal((z1 - loc) @ precision @ above @ top, top))


def labelled_linear() -> tuple[SemiSupervisedVAE, torch.Tensor]:
    """A class shifts a linear-Gaussian model: a mixture of Gaussians with one covariance."""
    torch.manual_seed(0)
    decoder = LabelledMLP(2, 3, [4], 5, activation=nn.Identity)
    with torch.no_grad():
        decoder.first.embedding.weight.mul_(10)
    return SemiSupervisedVAE(decoder, 2, 3, Gaussian(0.7)).double(), torch.randn(6, 5).double()


def labelled_linear_log_joint(model: SemiSupervisedVAE, x: torch.Tensor) -> torch.Tensor:
    """log p(x, y) of each class, shape (3, B)."""
    weight, bias = _linear_parts(model)
    noise = (2 * model.likelihood.log_scale).exp() * torch.eye(5).to(x)
    density = dist.MultivariateNormal(bias.unsqueeze(1), weight @ weight.T + noise)
    return density.log_prob(x) - math.log(3)


def _linear_parts(model: SemiSupervisedVAE) -> tuple[torch.Tensor, torch.Tensor]:
    """W (5, 2) and b (3, 5) of x = W z + b_y."""
    zero, one = torch.zeros(3, 2).double(), torch.eye(2).double()
    bias = model.decoder(zero, torch.arange(3))
    return (model.decoder(one, torch.zeros(2, dtype=torch.long)) - bias[0]).T, bias


class ExactLabelled(Guide):
    """The posterior q(y | x) q(z | x, y) of :func:`labelled_linear`; its parameters stay the oracle's."""

    def __init__(self, oracle):
        super().__init__()
        self._oracle = [oracle]

    def forward(self, x, y=None):
        (oracle,) = self._oracle
        weight, bias = _linear_parts(oracle)
        variance = (2 * oracle.likelihood.log_scale).exp()
        inverse = torch.linalg.inv(weight.T @ weight + variance * torch.eye(2).to(x))
        with pyro.plate("data", len(x)):
            if y is None:
                y = pyro.sample("y", dist.Categorical(logits=labelled_linear_log_joint(oracle, x).T))
            pyro.sample("z", dist.MultivariateNormal((x - bias[y]) @ weight @ inverse, variance * inverse))


class Walk(Model):
    """z2 ~ N(0, 1), z1 ~ N(z2, 1), x ~ N(z1, 1): the evidence is N(0, 3)."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(()).double())

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(x.new_zeros(()), 1.0))
            z1 = pyro.sample("z1", dist.Normal(z2 + self.shift, 1.0))
            pyro.sample("x", dist.Normal(z1, 1.0), obs=x)


class WalkBack(Guide):
    """The exact posterior of :class:`Walk`, drawn from below as q(z1 | x) q(z2 | z1)."""

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", dist.Normal(2 / 3 * x, (2 / 3) ** 0.5))
            pyro.sample("z2", dist.Normal(z1 / 2, 0.5**0.5))
