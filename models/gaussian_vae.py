"""A latent vector and a decoder.

    z ~ p(z)        x ~ p(x | decoder(z))

Source: Kingma and Welling 2014, "Auto-Encoding Variational Bayes".
"""

import pyro
from pyro import distributions as dist
from torch import Tensor, nn

from ppvae.distributions.likelihoods import Bernoulli, Likelihood
from ppvae.engine.contract import Model
from ppvae.models.priors import StandardNormal


class GaussianVAE(Model):
    """p(z) p(x | z); sites "z" and "x". A label y is ignored.

    Args:
        decoder: network (..., latent_dim) -> (..., *event_shape), with a last dimension of grey levels for a
            categorical likelihood.
        latent_dim: length of z.
        likelihood: distribution over x from the decoder's output; Bernoulli() if None.
        prior: p(z), such as ``MixtureOfGaussians(...)``; StandardNormal(latent_dim) if None.

    Example:

        >>> import torch
        >>> from ppvae.nn import MLP
        >>> model = GaussianVAE(MLP(2, [16], (8, 8)), latent_dim=2)
        >>> model.decode(torch.zeros(5, 2), event_dim=2).mean.shape
        torch.Size([5, 8, 8])
    """

    def __init__(
        self,
        decoder: nn.Module,
        latent_dim: int,
        likelihood: Likelihood | None = None,
        prior: nn.Module | None = None,
    ):
        super().__init__()
        self.decoder, self.latent_dim = decoder, latent_dim
        self.likelihood = likelihood or Bernoulli()
        self.prior = prior or StandardNormal(latent_dim)

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        """Draw z and observe x (B, *event_shape)."""
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.prior(x))
            pyro.sample("x", self.decode(z, x.dim() - 1), obs=x)

    def decode(self, z: Tensor, event_dim: int) -> dist.TorchDistribution:
        """p(x | z) for z of shape (..., latent_dim) and x of ``event_dim`` dimensions."""
        return self.likelihood(self.decoder(z), event_dim)
