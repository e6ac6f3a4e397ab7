"""Learning from labelled and unlabelled data at once."""

from torch import Tensor

from ppvae.objectives.base import Regulariser
from ppvae.particles import Particles


class ClassifierLoss(Regulariser):
    """- alpha log q(y | x) on the labelled data, 0 on the others, in nats.

    Beside a bound, whose unlabelled data have their classes enumerated and summed exactly:

        unlabelled   bound(x)
        labelled     bound(x, y) - alpha log q(y | x)      (its own class alone)

    A bound of a labelled datum does not involve q(y | x): this term is what lets labels train the classifier.
    Kingma's alpha = 0.1 N, for N data of which n are labelled, is 0.1 N / n times each labelled datum here.

    Args:
        alpha: weight of the classifier's loss, at least 0.

    Source: Kingma et al. 2014, "Semi-supervised Learning with Deep Generative Models", equations 6 to 9.
    """

    def __init__(self, alpha: float):
        if not alpha >= 0:
            raise ValueError(f"expected alpha of at least 0, got {alpha}")
        self.alpha = alpha

    def penalty(self, particles: Particles) -> Tensor | float:
        return 0.0 if particles.labels is None else -self.alpha * particles.log_label
