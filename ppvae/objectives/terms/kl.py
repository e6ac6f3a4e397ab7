"""How much of the rate, KL(q(z | x) || p(z)), a loss pays for, and how much of the distortion."""

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from ppvae.engine.particles import Particles
from ppvae.engine.tracing import LABEL, OBSERVED
from ppvae.objectives.base import Kind, Objective, Regulariser
from ppvae.objectives.critics import Adversary, Draws
from ppvae.objectives.schedules import Schedule, least, now, require_weight


class Reconstruction(Objective):
    """- E_q log p(x | z), in nats: an objective that pays for no rate at all, and is no bound.

    With a divergence of the aggregate posterior added it is that of the Wasserstein and the adversarial autoencoder. No
    density of the guide is in it (its draws are scored all the same, as in every objective).

    Args:
        num_particles: draws of the latents per datum.
    """

    kind = "other"

    def per_datum(self, particles: Particles) -> Tensor:
        return distortion(particles)


class KLWeight(Regulariser):
    """(weight - 1) KL(q(z | x) || p(z)): beside the ELBO, whose own KL it completes, the KL counts ``weight`` times.

    A bound of several draws (IWAE, Renyi) has no KL that a weight below 1 could be taken from: the loss would fall
    without end as q widens. Beside one the weight must never be below 1.

    Args:
        weight: at least 0, or a schedule such as ``warm_up(10_000)``.
        site: a latent; None for each of them.
        analytic_kl: as in :class:`ELBO`.

    Source: Higgins et al. 2017, "beta-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework".
    """

    reparameterised = reads_model = True
    beside = ("elbo", "bound")
    sets = "rate"

    def __init__(self, weight: float | Schedule, site: str | None = None, analytic_kl: bool = True):
        require_weight("weight", weight)
        self.weight, self.site, self.analytic_kl = weight, site, analytic_kl
        self.beside = weighed_beside(weight)

    def penalty(self, particles: Particles) -> Tensor:
        return (now(self.weight, particles) - 1) * rate(particles, self.site, self.analytic_kl)


class Capacity(Regulariser):
    """gamma |R - C| - R with the batch's mean rate R = E KL(q(z | x) || p(z)): beside a bound, whose own KL it
    takes the place of, it holds the rate at C nats.

    Args:
        capacity: C, at least 0, or a schedule such as ``Ramp(0.0, 25.0, 100_000)``.
        gamma: at least 0, or a schedule.
        site: a latent; None for all together.
        analytic_kl: as in :class:`ELBO`.

    Source: Burgess et al. 2018, "Understanding disentangling in beta-VAE", equation 8.
    """

    reparameterised = reads_model = over_batch = True
    beside = ("elbo",)
    sets = "rate"

    def __init__(
        self,
        capacity: float | Schedule,
        gamma: float | Schedule = 1000.0,
        site: str | None = None,
        analytic_kl: bool = True,
    ):
        require_weight("capacity", capacity)
        require_weight("gamma", gamma)
        self.capacity, self.gamma, self.site, self.analytic_kl = capacity, gamma, site, analytic_kl

    def penalty(self, particles: Particles) -> Tensor:
        mean_rate = rate(particles, self.site, self.analytic_kl).mean()
        return now(self.gamma, particles) * (mean_rate - now(self.capacity, particles)).abs() - mean_rate


class ConstrainedReconstruction(Regulariser):
    """(lambda - 1) D - lambda T with the distortion D = - E_q log p(x | z): beside the ELBO, whose own distortion it
    takes the place of, the loss is KL + lambda (D - T), whose saddle point is the least rate at a distortion of T.

    The multiplier lambda = exp(l) learns with the pair: l rises by ``speed * (D - T) / |T|`` a step, and by ``speed``
    at most, with an exponential average of D over the batches so far.

    Args:
        tolerance: T, in nats a datum; not 0.
        speed: of l.
        decay: of the average of D, from 0 to below 1.
        limit: lambda stays between 1 / limit and limit; a tolerance that needs more of it is not reached.

    Source: Rezende and Viola 2018, "Taming VAEs" (algorithm 1; there the constraint is on a squared error, and
    neither the multiplier nor its step is bounded, nor the step divided by the tolerance: at the start of training D is
    far from T, and lambda would grow beyond all sense before the pair could answer).
    """

    reparameterised = reads_model = True
    beside = ("elbo",)
    sets = "distortion"

    def __init__(self, tolerance: float, speed: float = 0.01, decay: float = 0.99, limit: float = 100.0):
        self.adversary = Multiplier(tolerance, speed, decay, limit)
        self.tolerance, self.speed, self.decay, self.limit = tolerance, speed, decay, limit

    def penalty(self, particles: Particles) -> Tensor:
        weight = self.adversary.value()
        return (weight - 1) * distortion(particles) - weight * self.tolerance


class Multiplier(Adversary):
    """The Lagrange multiplier of a constraint on the distortion; see :class:`ConstrainedReconstruction`."""

    def __init__(self, tolerance: float, speed: float, decay: float, limit: float):
        if not 0 < abs(tolerance) < math.inf or not 0 < speed < math.inf or not 0 <= decay < 1:
            raise ValueError(
                "expected tolerance finite and other than 0, speed above 0 and decay in [0, 1), got "
                f"{tolerance}, {speed} and {decay}"
            )
        if not 1 < limit < math.inf:
            raise ValueError(f"expected limit above 1 and finite, got {limit}")
        super().__init__(partial(torch.optim.SGD, lr=speed))
        self.tolerance, self.decay, self.log_limit = tolerance, decay, math.log(limit)
        self.log_multiplier = nn.Parameter(torch.zeros(()))
        self.register_buffer("average", torch.zeros((), dtype=torch.float64))
        self.register_buffer("weight", torch.zeros((), dtype=torch.float64))

    def value(self) -> Tensor:
        """lambda, without gradient."""
        return self.log_multiplier.detach().clamp(-self.log_limit, self.log_limit).exp()

    def loss(self, parts: Sequence[Particles], other: Sequence[Draws] = ()) -> Tensor:
        with torch.no_grad():
            self.log_multiplier.clamp_(-self.log_limit, self.log_limit)  # lest it be long on its way back
            mean = torch.cat([distortion(part) for part in parts]).mean()
            self.average.lerp_(mean.to(self.average), 1 - self.decay)
            self.weight.lerp_(torch.ones_like(self.weight), 1 - self.decay)
            violation = (self.average / self.weight - self.tolerance) / abs(self.tolerance)
        return -self.log_multiplier * violation.clamp(-1, 1).to(self.log_multiplier)


def weighed_beside(*weights: float | Schedule) -> tuple[Kind, ...]:
    """What the rate can be weighed beside: a bound that has no KL of its own only where no weight is below 1."""
    return ("elbo", "bound") if min(map(least, weights)) >= 1 else ("elbo",)


def distortion(particles: Particles) -> Tensor:
    """- E_q log p(x | z), shape (B,), in nats; of a known label, - log p(y) is a part of it."""
    return particles.average(-particles.log_likelihood)


def rate(particles: Particles, site: str | None, analytic_kl: bool) -> Tensor:
    """KL(q || p) of one latent or of all, shape (B,), in nats; 0 of a label that is known."""
    names = [site] if site is not None else list(particles.guide)
    if particles.labels is not None and LABEL not in particles.guide:
        names = [name for name in names if name != LABEL]
    zero = particles.model[OBSERVED].log_prob.new_zeros(particles.batch_size)
    return sum((particles.kl(name, analytic_kl) for name in names), zero)
