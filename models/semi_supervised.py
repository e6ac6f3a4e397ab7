"""A class and a style: the M2 model.

    y ~ Categorical(1/C)      z ~ N(0, I)      x ~ p(x | decoder(z, y))

On pixels it is M2. On the features of a trained M1 (``ppvae.features``), with a Gaussian likelihood, it is the
second storey of M1+M2.

Source: Kingma et al. 2014, "Semi-supervised Learning with Deep Generative Models".
"""

import pyro
import torch
from pyro import distributions as dist
from torch import Tensor, nn

from ppvae.distributions.gaussians import standard_normal
from ppvae.distributions.likelihoods import Bernoulli, Likelihood
from ppvae.engine.contract import Model


class SemiSupervisedVAE(Model):
    """p(y) p(z) p(x | y, z); sites "y", "z" and "x"; y is observed where it is given.

    Args:
        decoder: network of z (..., latent_dim) and y (...) to (..., *event_shape), such as ``LabelledMLP``.
        latent_dim: length of z.
        num_classes: C; the classes are equally likely a priori.
        likelihood: distribution over x from the decoder's output; Bernoulli() if None.
    """

    def __init__(self, decoder: nn.Module, latent_dim: int, num_classes: int, likelihood: Likelihood | None = None):
        super().__init__()
        self.decoder, self.latent_dim, self.num_classes = decoder, latent_dim, num_classes
        self.likelihood = likelihood or Bernoulli()

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        equal = torch.zeros(self.num_classes, dtype=x.dtype, device=x.device)
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Categorical(logits=equal), obs=y)
            z = pyro.sample("z", standard_normal(x, self.latent_dim))
            pyro.sample("x", self.decode(z, y, x.dim() - 1), obs=x)

    def decode(self, z: Tensor, y: Tensor, event_dim: int) -> dist.TorchDistribution:
        """p(x | z, y) for z of shape (..., latent_dim) and y of a shape that broadcasts with (...)."""
        return self.likelihood(self.decoder(z, y), event_dim)
