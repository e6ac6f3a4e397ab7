"""Learning from labelled and unlabelled data at once."""

from torch import Tensor

from ppvae.objectives.base import Objective, require_objective
from ppvae.particles import Particles


class SemiSupervised(Objective):
    """A bound, plus ``alpha`` times the classifier's loss on the labelled data.

    Loss of a datum, in nats:

        unlabelled   bound(x)                              (classes enumerated and summed exactly)
        labelled     bound(x, y) - alpha log q(y | x)      (its own class alone)

    A bound of a labelled datum does not involve q(y | x): the second term is what lets labels train
    the classifier. Kingma's alpha = 0.1 N, for N data of which n are labelled, is 0.1 N / n times each
    labelled datum here.

    Args:
        bound: an objective such as ``ELBO()`` or ``IWAE(5)``.
        alpha: weight of the classifier's loss, at least 0.

    Source: Kingma et al. 2014, "Semi-supervised Learning with Deep Generative Models", equations 6 to 9.
    """

    def __init__(self, bound: Objective, alpha: float):
        if not alpha >= 0:
            raise ValueError(f"expected alpha of at least 0, got {alpha}")
        super().__init__(require_objective(bound).num_particles)
        self.bound, self.alpha = bound, alpha

    @property
    def reparameterised(self) -> bool:
        return self.bound.reparameterised

    def per_datum(self, particles: Particles) -> Tensor:
        loss = self.bound.per_datum(particles)
        return loss if particles.labels is None else loss - self.alpha * particles.log_label
