"""Several layers of latent vectors.

    z_L ~ N(0, I)        z_l ~ N(loc_l(z_{l+1}), diag(scale_l(z_{l+1})^2))        x ~ p(x | decoder(z_1))

Source: Rezende, Mohamed and Wierstra 2014, "Stochastic Backpropagation and Approximate Inference in Deep Generative
Models"; Burda et al. 2016 (two layers on MNIST).
"""

from collections.abc import Sequence

import pyro
from pyro import distributions as dist
from torch import Tensor, nn

from ppvae.distributions.gaussians import diagonal_normal, standard_normal
from ppvae.distributions.likelihoods import Bernoulli, Likelihood
from ppvae.engine.contract import Model


class HierarchicalVAE(Model):
    """p(z_L) ... p(z_1 | z_2) p(x | z_1); sites "z1" (next to x) to "zL", and "x". A label y is ignored.

    Args:
        decoder: network of z1 to (..., *event_shape).
        conditionals: for l = 1 to L - 1 the network of z_{l+1} to (..., 2 * length of z_l): means, then logs of
            standard deviations. An empty list gives one layer.
        top_dim: length of z_L.
        likelihood: distribution over x from the decoder's output; Bernoulli() if None.

    Example:

        >>> import torch
        >>> from ppvae.nn import MLP
        >>> model = HierarchicalVAE(MLP(3, [16], (8, 8)), [MLP(2, [16], 2 * 3)], top_dim=2)
        >>> model.decode(torch.zeros(5, 3), event_dim=2).mean.shape
        torch.Size([5, 8, 8])
    """

    def __init__(
        self,
        decoder: nn.Module,
        conditionals: Sequence[nn.Module],
        top_dim: int,
        likelihood: Likelihood | None = None,
    ):
        super().__init__()
        self.decoder, self.conditionals, self.top_dim = decoder, nn.ModuleList(conditionals), top_dim
        self.likelihood = likelihood or Bernoulli()

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        """Draw zL to z1 and observe x (B, *event_shape)."""
        layers = len(self.conditionals) + 1
        with pyro.plate("data", len(x)):
            z = pyro.sample(f"z{layers}", standard_normal(x, self.top_dim))
            for layer in range(layers - 1, 0, -1):
                z = pyro.sample(f"z{layer}", diagonal_normal(self.conditionals[layer - 1](z)))
            pyro.sample("x", self.decode(z, x.dim() - 1), obs=x)

    def decode(self, z: Tensor, event_dim: int) -> dist.TorchDistribution:
        """p(x | z1) for z1 of shape (..., length of z1) and x of ``event_dim`` dimensions."""
        return self.likelihood(self.decoder(z), event_dim)
