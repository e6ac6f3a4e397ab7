"""The importance-weighted bound."""

import math

from torch import Tensor

from ppvae.objectives.base import Objective
from ppvae.particles import Particles


class IWAE(Objective):
    """Importance-weighted bound, log p(x) >= E log 1/K sum_k p(x, z_k) / q(z_k | x), per datum, in nats.

    Enumerated sites are summed out inside each weight, w_k = sum_y p(x, y, z_k) / q(z_k | x, y), so that the
    bound is exact in them; q(y | x) has no part in it, and gets a gradient from elsewhere if at all.
    With one particle and no discrete site it is the ELBO. Equals ``RenyiELBO(alpha=0)`` where Pyro's is right.

    Args:
        num_particles: K; more never loosens the bound.

    Source: Burda, Grosse and Salakhutdinov 2016, "Importance Weighted Autoencoders", equation 8.
    """

    def per_datum(self, particles: Particles) -> Tensor:
        return math.log(particles.num_particles) - particles.log_weight.logsumexp(0)
