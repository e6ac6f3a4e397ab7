"""A class, a style and an auxiliary variable: the auxiliary and the skip deep generative model.

    y ~ Categorical(1/C)      z ~ N(0, I)      a ~ N(loc(z, y), diag(scale(z, y)^2))
    x ~ p(x | decoder(z, y))        ADGM
    x ~ p(x | decoder(a, z, y))     SDGM, with ``skip=True``

In the ADGM the auxiliary variable a changes no marginal of the other variables. It is there for the guide: q(a | x)
q(y | a, x) q(z | a, x, y), with a integrated out, is a richer posterior of y and z than one Gaussian for each class.

Source: Maaløe, Sønderby, Sønderby and Winther 2016, "Auxiliary Deep Generative Models". There the distribution of a in
the ADGM reads x as well. Here no distribution of a model does, and both models have p(a | z, y).
"""

import pyro
import torch
from pyro import distributions as dist
from torch import Tensor, nn

from ppvae.distributions.gaussians import diagonal_normal, standard_normal
from ppvae.distributions.likelihoods import Bernoulli, Likelihood
from ppvae.engine.contract import Model


class AuxiliaryVAE(Model):
    """p(y) p(z) p(a | z, y) p(x | z, y), or with ``skip`` p(x | a, z, y); sites "y", "z", "a" and "x".

    y is observed if it is given.

    Args:
        decoder: network of z (..., latent_dim) and y (...) to (..., *event_shape), such as ``LabelledMLP``; with
            ``skip`` of a, z and y, such as ``JointMLP([auxiliary_dim, latent_dim, Classes(C)], ...)``.
        auxiliary: network of z and y to (..., 2 * auxiliary_dim): means, then logs of standard deviations of a.
        latent_dim: length of z.
        num_classes: C; the classes are equally likely a priori.
        likelihood: distribution over x from the decoder's output; Bernoulli() if None.
        skip: whether x depends on a.

    Example:

        >>> from ppvae.nn import Classes, JointMLP, LabelledMLP
        >>> decoder, auxiliary = JointMLP([4, 2, Classes(3)], [16], (8, 8)), LabelledMLP(2, 3, [16], 2 * 4)
        >>> model = AuxiliaryVAE(decoder, auxiliary, latent_dim=2, num_classes=3, skip=True)
        >>> model.decode(torch.zeros(5, 2), torch.zeros(5, dtype=torch.long), event_dim=2).mean.shape
        torch.Size([5, 8, 8])
    """

    def __init__(
        self,
        decoder: nn.Module,
        auxiliary: nn.Module,
        latent_dim: int,
        num_classes: int,
        likelihood: Likelihood | None = None,
        skip: bool = False,
    ):
        super().__init__()
        self.decoder, self.auxiliary = decoder, auxiliary
        self.latent_dim, self.num_classes, self.skip = latent_dim, num_classes, skip
        self.likelihood = likelihood or Bernoulli()

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        """Draw y (or observe it), z and a, and observe x (B, *event_shape)."""
        equal = torch.zeros(self.num_classes, dtype=x.dtype, device=x.device)
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Categorical(logits=equal), obs=y)
            z = pyro.sample("z", standard_normal(x, self.latent_dim))
            a = pyro.sample("a", diagonal_normal(self.auxiliary(z, y)))
            pyro.sample("x", self.decode(z, y, x.dim() - 1, a), obs=x)

    def decode(self, z: Tensor, y: Tensor, event_dim: int, a: Tensor | None = None) -> dist.TorchDistribution:
        """p(x | z, y), or with ``skip`` p(x | a, z, y), at the mean of p(a | z, y) if a is None.

        Args:
            z: shape (..., latent_dim).
            y: classes, of a shape that broadcasts with (...).
            event_dim: number of dimensions of x.
            a: shape (..., auxiliary_dim).
        """
        if not self.skip:
            return self.likelihood(self.decoder(z, y), event_dim)
        a = diagonal_normal(self.auxiliary(z, y)).mean if a is None else a
        return self.likelihood(self.decoder(a, z, y), event_dim)
