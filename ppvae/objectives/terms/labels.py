"""Terms that train a classifier q(y | x) inside a guide, or a model by it, and the weight of labelled rows."""

import math

import torch
from torch import Tensor

from ppvae.engine.particles import Particles
from ppvae.engine.sites import Site
from ppvae.engine.tracing import OBSERVED
from ppvae.errors import ContractError
from ppvae.objectives.base import Parts, Penalty, Regulariser
from ppvae.objectives.schedules import Schedule, require_weight, value_at


class ClassifierLoss(Penalty):
    """- alpha log q(y | x) on the labelled data, 0 on the others, in nats.

    With a bound that enumerates the classes of unlabelled data and sums them exactly, the loss is:

        unlabelled   - bound(x)
        labelled     - bound(x, y) - alpha log q(y | x)      (its own class alone)

    A bound of a labelled datum does not involve q(y | x), so that labels train the classifier by this term alone.

    In a step of ``fit`` every row counts once, labelled or not, so that labelled rows weigh more than in the paper:
    :class:`LabelledWeight` has the paper's weights.

    Part: "classifier/y".

    Args:
        alpha: weight of the classifier's loss, at least 0.
        site: the label.

    Source: Kingma et al. 2014, "Semi-supervised Learning with Deep Generative Models", equations 6 to 9.

    Example:

        >>> import ppvae
        >>> objective = ppvae.ELBO() + ppvae.ClassifierLoss(alpha=10.0)
    """

    label = "classifier"
    site: str
    reparameterised = over_batch = False

    def __init__(self, alpha: float, site: str = "y"):
        if not alpha >= 0:
            raise ValueError(f"expected alpha of at least 0, got {alpha}")
        self.alpha, self.site = float(alpha), site

    def penalty(self, particles: Particles) -> Tensor:
        """alpha times the cross-entropy of the labelled rows, (B,)."""
        batch = particles.batch
        if batch.y is None:
            return _zeros(particles)
        if self.site in particles.guide:
            q = label_site(particles, self.site).distribution
        else:
            q = particles.source.classify(self.site, noise=True)
        log_q = q.log_prob(batch.y.clamp(min=0)).reshape(-1, particles.batch_size).mean(0)
        return -self.alpha * torch.where(batch.y >= 0, log_q, 0.0)


class LabelledWeight(Regulariser):
    """Multiplies every part of labelled rows by a weight, after all other terms.

    ``fit`` minimises the mean over the rows of a step, U of them unlabelled and L labelled. Over an epoch an unlabelled
    row is read once and a labelled row L (N - n) / (U n) times, for N data with n labels. Kingma et al. minimise the
    sum over all data, each counted once, and 0.1 N times the mean of - log q(y | x) over the labels. That is

        ELBO() + ClassifierLoss(0.1 * N / n) + LabelledWeight(U * n / (L * (N - n)))

    Args:
        weight: at least 0.

    Source: Kingma et al. 2014, "Semi-supervised Learning with Deep Generative Models", equations 8 and 9.

    Example:

        >>> import ppvae
        >>> N, n, U, L = 1000, 20, 98, 20
        >>> weight = ppvae.LabelledWeight(U * n / (L * (N - n)))
        >>> objective = ppvae.ELBO() + ppvae.ClassifierLoss(0.1 * N / n) + weight
        >>> weight.weight
        0.1
    """

    last = True
    reparameterised = over_batch = False

    def __init__(self, weight: float):
        if not 0 <= weight < math.inf:
            raise ValueError(f"expected weight of at least 0, got {weight}")
        self.weight = float(weight)

    def apply(self, parts: Parts, particles: Particles) -> Parts:
        """The parts, those of labelled rows times the weight."""
        known = particles.batch.known
        if known is None:
            return parts
        scale = self.weight if particles.batch.all_known else torch.where(known, self.weight, 1.0)
        return {name: part * scale for name, part in parts.items()}


class Consistency(Penalty):
    """The disagreement of q(y | x) with itself on unlabelled data, in nats:

        - weight * 1[max_y t(y) > threshold] * sum_y t(y) log q(y | x)

    Here q(y | x) is the guide's as it is trained, with its noise (random views of x, dropout), and t(y) the same
    guide's in evaluation mode, without noise and without gradient. A loss with this term is no bound.

    Part: "consistency/y".

    Args:
        weight: at least 0.
        threshold: the least max_y t(y) at which a datum counts, from 0 to below 1.
        site: the label.

    Source: Xie et al. 2020, "Unsupervised Data Augmentation for Consistency Training"; the threshold: Sohn et al.
    2020, "FixMatch".

    Example:

        >>> import ppvae
        >>> objective = ppvae.ELBO() + ppvae.ClassifierLoss(10.0) + ppvae.Consistency(1.0)
    """

    label = "consistency"
    site: str
    reparameterised = over_batch = False

    def __init__(self, weight: float, threshold: float = 0.95, site: str = "y"):
        if not weight >= 0 or not 0 <= threshold < 1:
            raise ValueError(f"expected weight of at least 0 and threshold in [0, 1), got {weight} and {threshold}")
        self.weight, self.threshold, self.site = float(weight), threshold, site

    def penalty(self, particles: Particles) -> Tensor:
        """The weighted disagreement of each datum, (B,); 0 where the label is known."""
        if self.site not in particles.guide:  # every label is known
            return _zeros(particles)
        site = label_site(particles, self.site)
        with torch.no_grad():
            target = particles.source.classify(self.site, noise=False).log_prob(site.value).exp()
            sure = target.amax(0) > self.threshold
        log_q = site.log_q.masked_fill(target == 0, 0.0)
        return self.weight * (-(target * log_q).sum(0) * sure).mean(0)


class GeneratedLabels(Penalty):
    """The loss of reading each class in the model's own samples, in nats, with one draw of (y, z) for each datum:

        - weight * log q(y | E[x | y, z]),    y ~ p(y), z ~ p(z)

    The model learns from it and the guide does not: q(y | x) is the guide's as it stands, in evaluation mode, at the
    mean of p(x | y, z). The draws of y pass no gradient, so p(y) does not learn from it. Each datum gives its
    conditions to its draw, and labels are drawn whether they are known or not. A loss with this term is no bound.

    Part: "generated/y".

    Args:
        weight: at least 0, or a schedule.
        site: a latent of the model that the guide draws from x.

    Source: Hu et al. 2017, "Toward Controlled Generation of Text", equation 6, with the mean of x as its sample.

    Example:

        >>> import ppvae
        >>> objective = ppvae.ELBO() + ppvae.ClassifierLoss(10.0) + ppvae.GeneratedLabels(2.0)
    """

    label = "generated"
    site: str
    reparameterised = over_batch = False

    def __init__(self, weight: float | Schedule, site: str = "y"):
        require_weight("weight", weight)
        self.weight, self.site = weight, site

    def penalty(self, particles: Particles) -> Tensor:
        """The weighted loss of one sample for each datum, (B,)."""
        sites, batch = particles.source.generate(self.site), particles.batch
        x = _mean(sites[OBSERVED], particles.source.waits).expand(1, *batch.x.shape)[0]
        q = particles.source.classify(self.site, noise=False, batch=batch.with_x(x), freeze=True)
        return -value_at(self.weight, particles.step) * q.log_prob(sites[self.site].value[0])


def label_site(particles: Particles, name: str) -> Site:
    """The enumerated site of the label, log_prob (C, K or 1, B).

    Raises ContractError if q(y | x) depends on another discrete site.

    Example:

        >>> import ppvae, torch
        >>> from ppvae.guides import LabelGuide
        >>> from ppvae.models import SemiSupervisedVAE
        >>> model = SemiSupervisedVAE(ppvae.nn.LabelledMLP(2, 3, [8], (5,)), latent_dim=2, num_classes=3)
        >>> guide = LabelGuide(torch.nn.Linear(5, 3), torch.nn.Linear(5, 4))
        >>> label_site(ppvae.draw(model, guide, torch.zeros(4, 5)), "y").log_prob.shape
        torch.Size([3, 1, 4])
    """
    site = particles.latent(name)
    if site.log_prob.dim() != 3 or site.distribution.batch_shape[:-2].numel() != 1:
        raise ContractError(
            f"expected q({name} | x) that depends on no other discrete site, got log densities of shape "
            f"{tuple(site.log_prob.shape)} in the guide; draw the label before the other discrete sites"
        )
    return site


def _mean(site: Site, waits: bool) -> Tensor:
    """The mean of a distribution. Raises ContractError if it has none, or none that is finite."""
    try:
        mean = site.distribution.mean
    except (NotImplementedError, AttributeError):
        mean = None
    if mean is None or (waits and not mean.isfinite().all()):
        raise ContractError(
            f"expected a distribution of {site.name!r} with a finite mean, got {site.distribution}; use a likelihood "
            "of ppvae.likelihoods, or give the distribution a property mean"
        )
    return mean


def _zeros(particles: Particles) -> Tensor:
    return next(iter(particles.model.values())).log_prob.new_zeros(particles.batch_size)
