"""Penalties on the moments of the aggregate posterior."""

from torch import Tensor

from ppvae.engine.particles import Particles
from ppvae.objectives.base import Penalty
from ppvae.objectives.draws import moments
from ppvae.objectives.schedules import Schedule, require_weight, value_at


class DIPPenalty(Penalty):
    """off_diagonal sum_{d != e} C_de^2 + diagonal sum_d (C_dd - 1)^2, a scalar of the batch.

    C is the covariance over the batch of the means E_q[z | x] (DIP-VAE-I), or with ``of_draws`` that of z itself,
    Cov_x E_q[z | x] + E_x Cov_q[z | x] (DIP-VAE-II). Needs the mean and the variance of q(z | x) as formulas.

    Args:
        off_diagonal: at least 0, or a schedule.
        diagonal: at least 0, or a schedule.
        of_draws: which covariance.
        site: the latent.

    Source: Kumar, Sattigeri and Balakrishnan 2018, "Variational Inference of Disentangled Latent Concepts from
    Unlabeled Observations", equations 6 and 7.

    Example:

        >>> import ppvae
        >>> objective = ppvae.ELBO() + ppvae.DIPPenalty(10.0, 10.0, of_draws=True)
    """

    label = "moments"
    site: str
    reparameterised = False

    def __init__(
        self,
        off_diagonal: float | Schedule,
        diagonal: float | Schedule,
        of_draws: bool,
        site: str = "z",
    ) -> None:
        require_weight("off_diagonal", off_diagonal)
        require_weight("diagonal", diagonal)
        self.off_diagonal, self.diagonal, self.of_draws, self.site = off_diagonal, diagonal, of_draws, site

    def penalty(self, particles: Particles) -> Tensor:
        """The penalty, a scalar."""
        mean, within = moments(particles, self.site)
        centred = mean - mean.mean(1, keepdim=True)
        covariance = centred.mT @ centred / particles.batch_size
        if self.of_draws:
            covariance = covariance + within.mean(1)
        variance = covariance.diagonal(dim1=-2, dim2=-1)
        others = covariance.square().sum((-2, -1)) - variance.square().sum(-1)
        own = (variance - 1).square().sum(-1)
        return (
            value_at(self.off_diagonal, particles.step) * others + value_at(self.diagonal, particles.step) * own
        ).mean()
