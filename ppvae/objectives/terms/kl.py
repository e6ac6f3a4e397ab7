"""How much of the rate, KL(q(z | x) || p(z)), a loss counts."""

from ppvae.engine.particles import Particles, add_up
from ppvae.objectives.base import Parts, Regulariser, rates
from ppvae.objectives.schedules import Schedule, require_weight, value_at


class KLWeight(Regulariser):
    """weight KL(q(z | x) || p(z)): replaces the rate of an objective that has one, such as ELBO.

    A bound of several draws (IWAE, Renyi) has no KL to weigh, and is refused.

    Args:
        weight: at least 0, or a schedule such as ``warm_up(10_000)``.
        site: a latent; None for each of them.

    Source: Higgins et al. 2017, "beta-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework".

    Example:

        >>> import ppvae
        >>> objective = ppvae.ELBO() + ppvae.KLWeight(ppvae.warm_up(10_000))
    """

    over_batch = False
    completes = "rate"

    def __init__(self, weight: float | Schedule, site: str | None = None):
        require_weight("weight", weight)
        self.weight, self.site = weight, site

    def apply(self, parts: Parts, particles: Particles) -> Parts:
        """The parts, the rate times the weight."""
        weight = value_at(self.weight, particles.step)
        return {**parts, **{name: weight * parts[name] for name in rates(parts, self.site, particles)}}


class Capacity(Regulariser):
    """gamma |R - C| for the batch's mean rate R = E KL(q(z | x) || p(z)): replaces the rate, and holds it at C nats.

    Part: "capacity".

    Args:
        capacity: C, at least 0, or a schedule such as ``Ramp(0.0, 25.0, 100_000)``.
        gamma: at least 0, or a schedule.
        site: a latent; None for all together.

    Source: Burgess et al. 2018, "Understanding disentangling in beta-VAE", equation 8.

    Example:

        >>> import ppvae
        >>> objective = ppvae.ELBO() + ppvae.Capacity(ppvae.Ramp(0.0, 25.0, 100_000), gamma=1000.0)
    """

    completes = "rate"

    def __init__(self, capacity: float | Schedule, gamma: float | Schedule = 1000.0, site: str | None = None):
        require_weight("capacity", capacity)
        require_weight("gamma", gamma)
        self.capacity, self.gamma, self.site = capacity, gamma, site

    def apply(self, parts: Parts, particles: Particles) -> Parts:
        """The parts, the rate replaced by the distance of its mean from C."""
        names = rates(parts, self.site, particles)
        if not names:  # every latent of this batch is a known label
            return parts
        mean_rate = add_up(parts[name] for name in names).mean()
        gamma, capacity = value_at(self.gamma, particles.step), value_at(self.capacity, particles.step)
        kept = {name: part for name, part in parts.items() if name not in names}
        return {**kept, "capacity": gamma * (mean_rate - capacity).abs()}
