"""A class and a style: the M2 model.

    y ~ Categorical(1/C)      z ~ N(0, I)      x ~ p(x | decoder(z, y))

With pixels as x this is M2. With the features of a trained M1 as x (``ppvae.features``) and a Gaussian likelihood it is
the second part of M1+M2.

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
    """p(y) p(z) p(x | y, z); sites "y", "z" and "x"; y is observed if it is given.

    Args:
        decoder: network of z (..., latent_dim) and y (...) to (..., *event_shape), such as ``LabelledMLP``.
        latent_dim: length of z.
        num_classes: C; the classes are equally likely a priori.
        likelihood: distribution over x from the decoder's output; Bernoulli() if None.

    Example:

        >>> from ppvae.nn import LabelledMLP
        >>> model = SemiSupervisedVAE(LabelledMLP(2, 3, [16], (8, 8)), latent_dim=2, num_classes=3)
        >>> model.decode(torch.zeros(5, 2), torch.zeros(5, dtype=torch.long), event_dim=2).mean.shape
        torch.Size([5, 8, 8])
    """

    def __init__(self, decoder: nn.Module, latent_dim: int, num_classes: int, likelihood: Likelihood | None = None):
        super().__init__()
        self.decoder, self.latent_dim, self.num_classes = decoder, latent_dim, num_classes
        self.likelihood = likelihood or Bernoulli()

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        """Draw y (or observe it) and z, and observe x (B, *event_shape)."""
        equal = torch.zeros(self.num_classes, dtype=x.dtype, device=x.device)
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Categorical(logits=equal), obs=y)
            z = pyro.sample("z", standard_normal(x, self.latent_dim))
            pyro.sample("x", self.decode(z, y, x.dim() - 1), obs=x)

    def decode(self, z: Tensor, y: Tensor, event_dim: int) -> dist.TorchDistribution:
        """p(x | z, y) for z (..., latent_dim), y that broadcasts with (...), and x of ``event_dim`` dimensions."""
        return self.likelihood(self.decoder(z, y), event_dim)
