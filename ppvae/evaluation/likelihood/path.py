"""The annealing path from f_0 to p(x, z), in unconstrained coordinates.

f_b(z) = f_0(z)^(1 - b) p(x, z)^b,   f_0 = p(z) or q(z | x)
"""

from torch import Tensor

from ppvae.engine.batch import Batch
from ppvae.engine.isolation import forked_randomness
from ppvae.engine.pair import Pair
from ppvae.engine.particles import add_up
from ppvae.engine.requirements import require_can_score
from ppvae.evaluation.likelihood.coordinates import coordinates_of
from ppvae.evaluation.likelihood.hmc import LogDensity
from ppvae.evaluation.requirements import require_continuous, require_known, require_weights


class Path:
    """log f_0 and log p(x, z) as functions of u: the latents of all sites, unconstrained, in one vector per chain.

    Args:
        pair: f_0 is the guide, or the prior where the guide is None.
        batch: B data; labels all known, or None.
        chains: for each datum.

    Raises:
        ContractError: a latent is discrete or has a support that depends on another, labels are known in part, or the
            guide cannot score values that it did not draw, or is no density over the prior's whole space.

    Example:

        >>> import torch
        >>> from ppvae.models import LinearGaussian
        >>> path = Path(Pair(LinearGaussian(torch.eye(2), torch.zeros(2)), None), Batch(torch.zeros(3, 2)), chains=5)
        >>> path.log_density(0.5)(path.start()).shape
        torch.Size([5, 3])
    """

    def __init__(self, pair: Pair, batch: Batch, chains: int):
        require_known(batch)
        self.pair, self.batch, self.chains = pair, batch, chains
        with forked_randomness(batch.x.device):
            require_continuous(pair.prior(batch, 1))
            self.coordinates = coordinates_of(pair, batch)
            if pair.guide is not None:
                require_can_score(pair.guide)
                require_weights(pair, batch)

    def start(self) -> Tensor:
        """Draws of f_0, shape (chains, B, D)."""
        with_guide = self.pair.guide is not None
        sites = (
            self.pair.draw(self.batch, self.chains).guide if with_guide else self.pair.prior(self.batch, self.chains)
        )
        full = (self.chains, len(self.batch))
        names = self.coordinates.shapes
        return self.coordinates.unconstrained(
            {name: sites[name].value.expand(*full, *sites[name].distribution.event_shape) for name in names}
        )

    def log_densities(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """log f_0 and log p(x, .) of u, each (chains, B), both with the Jacobian of the coordinates."""
        values, log_volume = self.coordinates.constrained(u)
        sites = self.pair.model_at(self.batch, values, self.chains).values()
        prior = add_up(site.log_prob for site in sites if not site.observed)
        joint = prior + add_up(site.log_prob for site in sites if site.observed)
        if self.pair.guide is None:
            return prior + log_volume, joint + log_volume
        guide = self.pair.guide_at(self.batch, values, self.chains).values()
        return add_up(site.log_prob for site in guide) + log_volume, joint + log_volume

    def log_density(self, beta: float) -> LogDensity:
        """u -> log f_beta(u)."""

        def log_density(u: Tensor) -> Tensor:
            base, joint = self.log_densities(u)
            return (1 - beta) * base + beta * joint

        return log_density
