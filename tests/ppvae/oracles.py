"""Oracles of known evidence, and guides that are exact or known to be off."""

import pyro
import torch
from ppvae.guides import MeanFieldGaussian
from ppvae.models import GaussianMixture, LinearGaussian

from ppvae.contract import Guide
from ppvae.nn import MLP


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
