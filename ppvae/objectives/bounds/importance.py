"""Importance-weighted bounds and their gradient estimators."""

import math
from dataclasses import replace

from torch import Tensor

from ppvae.engine.particles import Particles
from ppvae.errors import ContractError
from ppvae.objectives.base import Objective


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


class DReG(Objective):
    """The importance-weighted bound, with the doubly reparameterised gradient for the guide.

    The loss is that of :class:`IWAE`, and so is the model's gradient. The guide's, with u_k = w_k / sum_j w_j, is

        sum_k u_k^2  d log w_k / dz_k  dz_k / dphi

    which has the same mean, and a signal-to-noise ratio that grows with K instead of falling. Where classes are
    enumerated and z is drawn for each of them, u runs over classes and particles both; q(y | x) gets no gradient, as
    with :class:`IWAE`.

    Needs a guide that can score any value, and reparameterised draws.

    Args:
        num_particles: K.

    Source: Tucker et al. 2019, "Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives", equation 8.
    """

    weighs_path = True

    def per_datum(self, particles: Particles) -> Tensor:
        _require_alike(particles)
        log_weight = particles.joint_log_weight(particles.frozen_guide())
        loss = math.log(particles.num_particles) - log_weight.flatten(0, -2).logsumexp(0)
        particles.weigh_path(normalised(log_weight))
        return loss


class Renyi(Objective):
    """Renyi's variational bound of order alpha, per datum, in nats, with w_k = p(x, z_k) / q(z_k | x):

        E 1/(1 - alpha) log 1/K sum_k w_k^(1 - alpha)

    alpha = 0 is :class:`IWAE`; the limits are max_k log w_k (alpha = -inf) and min_k log w_k (alpha = inf). It falls
    with alpha. For alpha >= 0 it is a lower bound of log p(x) for every K; for alpha < 0 its limit K -> inf is an
    upper bound, and finite K may stand on either side.

    Args:
        alpha: any real number but 1, or minus or plus infinity. At 1 the bound is ``ELBO``.
        num_particles: K.

    Source: Li and Turner 2016, "Renyi Divergence Variational Inference", equations 7 and 14.
    """

    def __init__(self, alpha: float, num_particles: int = 2):
        super().__init__(num_particles)
        if alpha == 1 or math.isnan(alpha):
            raise ValueError(f"expected alpha other than 1, got {alpha}; use ELBO(), which is the limit at 1")
        self.alpha = alpha

    def per_datum(self, particles: Particles) -> Tensor:
        log_weight = particles.log_weight
        if math.isinf(self.alpha):
            return -(log_weight.amax(0) if self.alpha < 0 else log_weight.amin(0))
        power, centre = 1 - self.alpha, log_weight.mean(0)
        scaled = power * (log_weight - centre)
        if abs(power) < 0.01:  # close to the ELBO: the logarithm of nearly 1, by what it is more than 1
            return -(centre + scaled.expm1().mean(0).log1p() / power)
        return -(centre + (scaled.logsumexp(0) - math.log(particles.num_particles)) / power)


class ReweightedWakeSleep(Objective):
    """Wake and sleep, with one set of weights for each datum.

    The model learns by the importance-weighted bound, which is also the value of the loss; the guide by

        insomnia * (- sum_k u_k log q(z_k | x)) + (1 - insomnia) * (- log q(z' | x')),   (x', z') ~ p(x, z)

    where u_k = w_k / sum_j w_j and z_k are constants. Enumerated sites are weighted by their own u, so q(y | x)
    learns too. No draw needs to be reparameterised. The gradient of the wake term is biased for finite K.

    Needs a guide that can score any value.

    Args:
        num_particles: K, at least 2 unless insomnia is 0.
        insomnia: share of the wake update of the guide: 1 is wake-wake, 0 is wake-sleep (as in Pyro).

    Source: Bornschein and Bengio 2015, "Reweighted Wake-Sleep"; Le et al. 2020, "Revisiting Reweighted Wake-Sleep".
    """

    reparameterised = False
    weighs_path = True

    def __init__(self, num_particles: int = 5, insomnia: float = 1.0):
        super().__init__(num_particles)
        if not 0 <= insomnia <= 1:
            raise ValueError(f"expected insomnia from 0 to 1, got {insomnia}")
        if insomnia > 0 and num_particles < 2:
            raise ValueError(
                f"expected at least 2 particles for the wake update of the guide, got {num_particles}: a single one "
                "has weight 1 whatever it is; use more, or insomnia=0"
            )
        self.insomnia = insomnia

    def per_datum(self, particles: Particles) -> Tensor:
        guide = particles.detached_guide()
        log_weight = particles.joint_log_weight(_detached(guide))
        particles.weigh_path(log_weight.new_zeros(log_weight.shape))  # the bound teaches the model alone
        loss = math.log(particles.num_particles) - log_weight.flatten(0, -2).logsumexp(0)
        if self.insomnia > 0:
            share = normalised(log_weight)
            log_q = sum(site.log_prob for site in guide.values()).expand_as(share).masked_fill(share == 0, 0.0)
            loss = loss + self.insomnia * _gradient_alone(-(share * log_q).flatten(0, -2).sum(0))
        if self.insomnia < 1:
            loss = loss + (1 - self.insomnia) * _gradient_alone(-particles.source.sleep())
        return loss


class ForwardKL(Objective):
    """- log q(z | x) of draws (x, z) ~ p(x, z), in nats: it trains the guide alone.

    Up to the entropy of p(z | x), which the guide cannot change, it is the mean over simulated data of
    KL(p(z | x) || q(z | x)): a guide that misses a mode of the posterior pays for it. The data tell the sizes of the
    batches and nothing else.

    Needs a guide that can score any value.

    Source: Hinton et al. 1995, "The Wake-Sleep Algorithm for Unsupervised Neural Networks" (the sleep phase).
    """

    reparameterised = False
    kind = "other"

    def __init__(self):
        super().__init__(num_particles=1)

    def per_datum(self, particles: Particles) -> Tensor:
        return -particles.source.sleep()


def _require_alike(particles: Particles) -> None:
    """A latent drawn once for all classes, and below it one drawn for each, would need two different weights."""
    shapes = {name: particles.guide[name].distribution.batch_shape for name in particles.gates}
    if len(set(shapes.values())) > 1:
        raise ContractError(
            f"expected latents that are all drawn for the same enumerated sites, got batch shapes {shapes}; use IWAE"
        )


def normalised(log_weight: Tensor) -> Tensor:
    """The share of each weight in its datum's sum, (enumeration..., K, B); no gradient."""
    return log_weight.detach().flatten(0, -2).softmax(0).reshape(log_weight.shape)


def _detached(guide: dict) -> dict:
    return {name: replace(site, log_prob=site.log_prob.detach()) for name, site in guide.items()}


def _gradient_alone(loss: Tensor) -> Tensor:
    """A loss of value 0."""
    return loss - loss.detach()
