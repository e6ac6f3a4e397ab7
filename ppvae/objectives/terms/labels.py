"""Terms that train a classifier q(y | x) inside a guide."""

import torch
from torch import Tensor

from ppvae.engine.particles import Particles
from ppvae.engine.tracing import LABEL
from ppvae.objectives.base import Regulariser


class Consistency(Regulariser):
    """The disagreement of q(y | x) with itself on unlabelled data, in nats:

        - weight * 1[max_y t(y) > threshold] * sum_y t(y) log q(y | x)

    Here q(y | x) is the guide's as it is trained, with its noise (random views of x, dropout), and t(y) the same
    guide's in evaluation mode, without noise and without gradient. With it a loss is no bound.

    Args:
        weight: at least 0.
        threshold: how sure t must be of its class, from 0 to below 1.

    Source: Xie et al. 2020, "Unsupervised Data Augmentation for Consistency Training"; the threshold: Sohn et al.
    2020, "FixMatch".
    """

    def __init__(self, weight: float, threshold: float = 0.95):
        if not weight >= 0 or not 0 <= threshold < 1:
            raise ValueError(f"expected weight of at least 0 and threshold in [0, 1), got {weight} and {threshold}")
        self.weight, self.threshold = weight, threshold

    def penalty(self, particles: Particles) -> Tensor | float:
        if LABEL not in particles.guide:  # every label is known
            return 0.0
        label = particles.label_site
        with torch.no_grad():
            target = particles.source.classify(noise=False).log_prob(label.value).exp()
            sure = target.amax(0) > self.threshold
        log_q = label.log_prob.masked_fill(target == 0, 0.0)  # and 0 where the label is known
        disagreement = -(target * log_q).sum(0) * sure
        return self.weight * disagreement.mean(0)


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
