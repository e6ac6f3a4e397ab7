"""A latent Gaussian and a decoder.

    z ~ N(0, I)        x ~ p(x | decoder(z))

Source: Kingma and Welling 2014, "Auto-Encoding Variational Bayes".
"""

import pyro
import torch
from pyro import distributions as dist
from torch import Tensor, nn

from ppvae.contract import Model
from ppvae.likelihoods import Bernoulli, Likelihood


class GaussianVAE(Model):
    """p(z) p(x | z) with a standard normal prior; sites "z" and "x". A label y is ignored.

    Args:
        decoder: network (..., latent_dim) -> (..., *event_shape), with a last dimension of grey levels for a
            categorical likelihood.
        latent_dim: length of z.
        likelihood: distribution over x from the decoder's output; Bernoulli() if None.
    """

    def __init__(self, decoder: nn.Module, latent_dim: int, likelihood: Likelihood | None = None):
        super().__init__()
        self.decoder, self.latent_dim = decoder, latent_dim
        self.likelihood = likelihood or Bernoulli()

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", standard_normal(x, self.latent_dim))
            pyro.sample("x", self.decode(z, x.dim() - 1), obs=x)

    def decode(self, z: Tensor, event_dim: int) -> dist.TorchDistribution:
        """p(x | z) for z of shape (..., latent_dim)."""
        return self.likelihood(self.decoder(z), event_dim)


def standard_normal(like: Tensor, latent_dim: int) -> dist.TorchDistribution:
    """N(0, I) over vectors of length ``latent_dim``, with the type and device of ``like``."""
    zero = torch.zeros((), dtype=like.dtype, device=like.device)
    return dist.Normal(zero, zero + 1).expand([latent_dim]).to_event(1)
