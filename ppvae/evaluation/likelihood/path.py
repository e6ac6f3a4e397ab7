"""The annealing path from f_0 to p(x, z), in unconstrained coordinates.

f_b(z) = f_0(z)^(1 - b) p(x, z)^b,   f_0 = p(z) or q(z | x)
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import biject_to
from torch.distributions.transforms import Transform

from ppvae.engine.batch import Batch
from ppvae.engine.isolation import forked_randomness
from ppvae.engine.pair import Pair
from ppvae.engine.particles import Draws, add_up
from ppvae.engine.requirements import require_can_score
from ppvae.engine.sites import Site
from ppvae.errors import ContractError
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

        >>> from ppvae.models import LinearGaussian
        >>> path = Path(Pair(LinearGaussian(torch.eye(2), torch.zeros(2)), None), Batch(torch.zeros(3, 2)), chains=5)
        >>> path.log_density(0.5)(path.start()).shape
        torch.Size([5, 3])
    """

    def __init__(self, pair: Pair, batch: Batch, chains: int):
        require_known(batch)
        self.pair, self.batch, self.chains = pair, batch, chains
        with forked_randomness(batch.x.device):
            sites, others = self._latents(), self._latents()
            require_continuous(sites)
            _require_fixed_supports(sites, others)
            if pair.guide is not None:
                require_can_score(pair.guide)
                require_weights(pair, batch)
        self.transforms = {name: _unconstraining(site.distribution.support) for name, site in sites.items()}
        self.shapes = {name: self.transforms[name].inv(site.value).shape[2:] for name, site in sites.items()}

    def _latents(self) -> dict[str, Site]:
        return {name: site for name, site in self.pair.prior(self.batch, 1).items() if not site.observed}

    def start(self) -> Tensor:
        """Draws of f_0, shape (chains, B, D)."""
        with_guide = self.pair.guide is not None
        sites = (
            self.pair.draw(self.batch, self.chains).guide if with_guide else self.pair.prior(self.batch, self.chains)
        )
        full = (self.chains, len(self.batch))
        return self.unconstrained(
            {name: sites[name].value.expand(*full, *sites[name].distribution.event_shape) for name in self.shapes}
        )

    def unconstrained(self, values: Draws) -> Tensor:
        """Values of the latents (chains, B, *event_shape) as one vector per chain, (chains, B, D)."""
        parts = [self.transforms[name].inv(values[name]) for name in self.shapes]
        return torch.cat([part.reshape(*part.shape[:2], -1) for part in parts], -1)

    def log_densities(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """log f_0 and log p(x, .) of u, each (chains, B), both with the Jacobian of the coordinates."""
        values, log_volume = self._constrained(u)
        sites = self.pair.model_at(self.batch, values, self.chains).values()
        prior = add_up(site.log_prob for site in sites if not site.observed)
        joint = prior + add_up(site.log_prob for site in sites if site.observed)
        if self.pair.guide is None:
            return prior + log_volume, joint + log_volume
        guide = self.pair.guide_at(self.batch, values, self.chains).values()
        return add_up(site.log_prob for site in guide) + log_volume, joint + log_volume

    def _constrained(self, u: Tensor) -> tuple[Draws, Tensor]:
        """Values of the latents by name, and the log Jacobian determinant, (chains, B)."""
        values: Draws = {}
        log_volume = u.new_zeros(u.shape[:2])
        sizes = [math.prod(shape) for shape in self.shapes.values()]
        for (name, shape), part in zip(self.shapes.items(), u.split(sizes, -1), strict=True):
            part, transform = part.reshape(*u.shape[:2], *shape), self.transforms[name]
            values[name] = transform(part)
            volume = transform.log_abs_det_jacobian(part, values[name])
            log_volume = log_volume + volume.reshape(*u.shape[:2], -1).sum(-1)
        return values, log_volume

    def log_density(self, beta: float) -> LogDensity:
        """u -> log f_beta(u)."""

        def log_density(u: Tensor) -> Tensor:
            base, joint = self.log_densities(u)
            return (1 - beta) * base + beta * joint

        return log_density


def _unconstraining(support: Any) -> Transform:
    """The map from unconstrained coordinates; a mixture has the support of its components."""
    return biject_to(getattr(support, "base_constraint", support) if "Mixture" in type(support).__name__ else support)


def _require_fixed_supports(sites: dict[str, Site], others: dict[str, Site]) -> None:
    """Raise ContractError where a support changed between two runs of the model: it depends on another latent."""
    moving = [
        name
        for name, site in sites.items()
        if not all(map(torch.equal, *(_bounds(each[name].distribution.support) for each in (sites, others))))
    ]
    if moving:
        raise ContractError(
            f"expected latents of a fixed support, got {moving}, whose support depends on another latent; let the "
            "model draw a variable of fixed support and map it"
        )


def _bounds(support: Any) -> list[Tensor]:
    """The numbers that a constraint is made of, including those of its base constraint."""
    own = [torch.as_tensor(v) for v in vars(support).values() if isinstance(v, Tensor | int | float)]
    return own + (_bounds(support.base_constraint) if hasattr(support, "base_constraint") else [])
