"""The evidence lower bound, and the reconstruction alone."""

from torch import Tensor

from ppvae.engine.batch import Batch
from ppvae.engine.pair import Pair
from ppvae.engine.particles import Particles
from ppvae.objectives.base import Objective, Parts


class ELBO(Objective):
    """Evidence lower bound, log p(x) >= E_q [log p(x | z)] - KL(q(z | x) || p(z)).

    Loss of a datum, in nats, with the particles averaged and enumerated sites summed exactly under q:

        - E_q [log p(x | z)] + sum_i E_q [KL(q(z_i | ...) || p(z_i | ...))]

    Parts: "distortion", and "rate/z" for each latent z.

    Args:
        num_particles: draws of the latents per datum.
        analytic_kl: use the closed form of a site's KL where there is one and it is unbiased (see
            :meth:`Particles.kl`); else log q - log p at the draws. Same mean, less variance.

    Where Pyro's own are right, it equals ``TraceMeanField_ELBO`` (analytic), ``Trace_ELBO`` (sampled) and
    ``TraceEnum_ELBO`` (enumerated, sampled).

    Source: Kingma and Welling 2014, "Auto-Encoding Variational Bayes", equations 3 and 7.

    Example:

        >>> import ppvae, torch
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> model = LinearGaussian(torch.eye(2), torch.zeros(2))
        >>> guide = MeanFieldGaussian(ppvae.nn.MLP(2, [], 4))
        >>> sorted(ELBO().parts(ppvae.draw(model, guide, torch.zeros(3, 2))))
        ['distortion', 'rate/z']
    """

    completable = ("rate", "distortion")

    def __init__(self, num_particles: int = 1, analytic_kl: bool = True):
        super().__init__(num_particles)
        self.analytic_kl = analytic_kl

    def parts(self, particles: Particles) -> Parts:
        """Distortion and the rate of each latent."""
        rates = {f"rate/{name}": particles.kl(name, self.analytic_kl) for name in particles.guide}
        return {"distortion": distortion(particles), **rates}


class StickingTheLanding(Objective):
    """The evidence lower bound with only the path derivative as the guide's gradient.

    The loss is that of ``ELBO(analytic_kl=False)``, with the same parts. Its gradient leaves out
    d log q(z; phi) / dphi at a fixed draw z, which has mean zero: at the exact posterior the remaining gradient is zero
    for every draw. Enumerated sites, which are summed and not drawn, keep their whole gradient.

    Requires reparameterised draws and a guide with ``log_prob`` at arbitrary values; otherwise it raises
    ``ContractError``.

    Args:
        num_particles: draws of the latents per datum.

    Source: Roeder, Wu and Duvenaud 2017, "Sticking the Landing: Simple, Lower-Variance Gradient Estimators for
    Variational Inference", equation 6.

    Example:

        >>> StickingTheLanding(num_particles=2).num_particles
        2
    """

    completable = ("rate", "distortion")

    def draw(self, pair: Pair, batch: Batch, step: int | None = None) -> Particles:
        """A replay with recorded noise."""
        return pair.draw(batch, self.num_particles, record=True, step=step)

    def parts(self, particles: Particles) -> Parts:
        """Distortion and the rate of each latent."""
        particles.require_weights()
        held = particles.source.score_guide(particles.draws, freeze=True)
        rates = {}
        for name, site in particles.guide.items():
            log_q = site.log_q if site.enumerated else held[name].log_prob
            log_p = particles.model[name].log_prob
            log_p = log_p if site.known is None else log_p.masked_fill(site.known, 0.0)
            rates[f"rate/{name}"] = particles.average(log_q - log_p)
        return {"distortion": distortion(particles), **rates}


class Reconstruction(Objective):
    """- E_q log p(x | z), in nats: the distortion alone, without any rate. It is no bound.

    With a divergence of the aggregate posterior added it is the objective of the Wasserstein and the adversarial
    autoencoder. It reads no density of the guide, so that point masses are allowed.

    Args:
        num_particles: draws of the latents per datum.

    Example:

        >>> Reconstruction().completable
        ('distortion',)
    """

    completable = ("distortion",)

    def parts(self, particles: Particles) -> Parts:
        """The distortion."""
        return {"distortion": distortion(particles)}


def distortion(particles: Particles) -> Tensor:
    """- E_q log p(x | z), shape (B,), in nats; - log p(y) of a known label is a part of it.

    Example:

        >>> import ppvae, torch
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> model, guide = LinearGaussian(torch.eye(2), torch.zeros(2)), MeanFieldGaussian(torch.nn.Linear(2, 4))
        >>> distortion(ppvae.draw(model, guide, torch.zeros(3, 2), num_particles=5)).shape
        torch.Size([3])
    """
    return particles.average(-particles.log_likelihood)
