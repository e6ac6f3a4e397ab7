"""The evidence lower bound."""

from torch import Tensor

from ppvae.engine.particles import Particles
from ppvae.objectives.base import Objective


class ELBO(Objective):
    """Evidence lower bound, log p(x) >= E_q [log p(x | z)] - KL(q(z | x) || p(z)).

    Loss of a datum, in nats, with the particles averaged and enumerated sites summed exactly under q:

        - E_q [log p(x | z)] + sum_i E_q [KL(q(z_i | ...) || p(z_i | ...))]

    Args:
        num_particles: draws of the latents per datum.
        analytic_kl: use the closed form of a site's KL where there is one and it is unbiased (see
            :meth:`Particles.kl`); else log q - log p at the draws. Same mean, less variance.

    Where Pyro's own are right, it equals ``TraceMeanField_ELBO`` (analytic), ``Trace_ELBO`` (sampled) and
    ``TraceEnum_ELBO`` (enumerated, sampled).

    Source: Kingma and Welling 2014, "Auto-Encoding Variational Bayes", equations 3 and 7.
    """

    kind = "elbo"

    def __init__(self, num_particles: int = 1, analytic_kl: bool = True):
        super().__init__(num_particles)
        self.analytic_kl = analytic_kl

    def per_datum(self, particles: Particles) -> Tensor:
        kl = sum(particles.kl_integrand(name, self.analytic_kl) for name in particles.guide)
        return particles.average(kl - particles.log_likelihood)


class StickingTheLanding(Objective):
    """The evidence lower bound with the path derivative alone as the guide's gradient.

    The loss is that of ``ELBO(analytic_kl=False)``. Its gradient leaves out d log q(z; phi) / dphi at a fixed draw z,
    which has mean zero: at the exact posterior what remains is zero for every draw. Enumerated sites, which are
    summed and not drawn, keep their whole gradient.

    Needs a guide that can score any value, and reparameterised draws.

    Args:
        num_particles: draws of the latents per datum.

    Source: Roeder, Wu and Duvenaud 2017, "Sticking the Landing: Simple, Lower-Variance Gradient Estimators for
    Variational Inference", equation 6.
    """

    kind = "elbo"

    def per_datum(self, particles: Particles) -> Tensor:
        enumerated = sum(site.log_prob for site in particles.guide.values() if site.enumerated)
        return particles.average(enumerated - particles.joint_log_weight(particles.frozen_guide()))
