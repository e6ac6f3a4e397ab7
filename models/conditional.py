"""A latent vector and a decoder, given conditions.

    z ~ p(z | c) = N(loc(c), diag(scale(c)^2)),   [loc, log scale] = prior(c)        x ~ p(x | decoder(z, c))

The guide is q(z | x, c), any of ``ppvae.guides`` with the same conditions. With the label as condition the pair is
class-conditional: p(x | y, z) and q(z | x, y).

Source: Sohn, Lee and Yan 2015, "Learning Structured Output Representation using Deep Conditional Generative Models".
"""

from collections.abc import Sequence

import pyro
from pyro import distributions as dist
from torch import Tensor, nn

from ppvae.distributions.gaussians import diagonal_normal, standard_normal
from ppvae.distributions.likelihoods import Bernoulli, Likelihood
from ppvae.engine.conditions import Conditions
from ppvae.engine.contract import Model
from ppvae.errors import ContractError


class ConditionalVAE(Model):
    """p(z | conditions) p(x | z, conditions); sites "z" and "x". The conditions are given and have no site.

    Args:
        decoder: network of z (..., latent_dim) and the conditions, in their order, to (..., *event_shape), such as
            ``JointMLP``, or ``LabelledMLP`` for the label.
        latent_dim: length of z.
        conditions: their names, such as "angle" or ["angle", "y"]. "y" is the label; the others are conditions of the
            data, ``Dataset(x, angle=...)``.
        likelihood: distribution over x from the decoder's output; Bernoulli() if None.
        prior: network of the conditions to (B, 2 * latent_dim): means, then logs of standard deviations. If None, z has
            the prior N(0, I) whatever the conditions are.

    Raises ValueError without a name. Called without one of its conditions, the model raises ContractError.

    Example:

        >>> import torch
        >>> from ppvae.nn import JointMLP, MLP
        >>> decoder, prior = JointMLP([2, 3], [16], (8, 8)), MLP(3, [16], 2 * 2)
        >>> model = ConditionalVAE(decoder, latent_dim=2, conditions="angle", prior=prior)
        >>> model.decode(torch.zeros(5, 2), torch.zeros(5, 3), event_dim=2).mean.shape
        torch.Size([5, 8, 8])
    """

    def __init__(
        self,
        decoder: nn.Module,
        latent_dim: int,
        conditions: str | Sequence[str],
        likelihood: Likelihood | None = None,
        prior: nn.Module | None = None,
    ):
        super().__init__()
        self.decoder, self.latent_dim, self.conditions = decoder, latent_dim, Conditions(conditions)
        if not self.conditions.names:
            raise ValueError("expected the name of a condition, got none; GaussianVAE is the model without conditions")
        self.likelihood, self.prior = likelihood or Bernoulli(), prior

    def forward(self, x: Tensor, y: Tensor | None = None, **given: Tensor) -> None:
        """Draw z and observe x (B, *event_shape)."""
        values = self.conditions.values(type(self).__name__, y, given)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.latent_prior(x, *values))
            pyro.sample("x", self.decode(z, *values, event_dim=x.dim() - 1), obs=x)

    forward.conditions_named_by = lambda model: model.conditions.signature  # type: ignore[attr-defined]

    def latent_prior(self, template: Tensor, *conditions: Tensor) -> dist.TorchDistribution:
        """p(z | conditions) for conditions in their order; N(0, I), of the template's type and device, has no rows."""
        if self.prior is None:
            return standard_normal(template, self.latent_dim)
        found = diagonal_normal(self.prior(*conditions))
        if found.event_shape != (self.latent_dim,):
            raise ContractError(
                f"expected a prior network of 2 * {self.latent_dim} features, the means and log standard deviations of "
                f"z, got {2 * found.event_shape[0]}; change its output or latent_dim"
            )
        return found

    def decode(self, z: Tensor, *conditions: Tensor, event_dim: int) -> dist.TorchDistribution:
        """p(x | z, conditions) for z (..., latent_dim), conditions in their order, x of ``event_dim`` dimensions."""
        return self.likelihood(self.decoder(z, *conditions), event_dim)
