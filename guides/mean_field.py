"""A Gaussian with a diagonal covariance.

q(z | x) = N(loc(x), diag(scale(x)^2)),   [loc, log scale] = encoder(x)

Source: Kingma and Welling 2014, "Auto-Encoding Variational Bayes", appendix C.2.
"""

import pyro
from pyro import distributions as dist
from torch import Tensor, nn

from ppvae.contract import Guide


class MeanFieldGaussian(Guide):
    """Diagonal Gaussian q(z | x); site "z". A label y is ignored.

    Args:
        encoder: network (B, *event_shape) -> (B, 2 * latent_dim): means, then logs of standard deviations.
    """

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", diagonal_normal(self.encoder(x)))


def diagonal_normal(features: Tensor) -> dist.TorchDistribution:
    """Diagonal Gaussian over the last dimension, from its means and the logs of its scales."""
    if features.shape[-1] % 2:
        raise ValueError(f"expected an even number of features, means then log scales, got {features.shape[-1]}")
    loc, log_scale = features.chunk(2, -1)
    return dist.Normal(loc, log_scale.exp()).to_event(1)
