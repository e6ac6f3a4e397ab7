"""Training a guide on draws of the model, and on its own weighted draws."""

import math
from dataclasses import replace

from torch import Tensor

from ppvae.engine.batch import Batch
from ppvae.engine.pair import Pair
from ppvae.engine.particles import Particles, add_up
from ppvae.objectives.base import Objective, Parts
from ppvae.objectives.bounds.importance import normalised


class ReweightedWakeSleep(Objective):
    """Wake and sleep, with one set of weights for each datum.

    The model learns by the importance-weighted bound, which is also the value of the loss; the guide by

        insomnia * (- sum_k u_k log q(z_k | x)) + (1 - insomnia) * (- log q(z' | x')),   (x', z') ~ p(x, z)

    where u_k = w_k / sum_j w_j and z_k are constants. Enumerated sites are weighted by their own u, so q(y | x)
    learns too. No draw needs to be reparameterised. The gradient of the wake term is biased for finite K.

    Part: "negative_bound". Requires a guide with ``log_prob`` at arbitrary values; otherwise raises ``ContractError``.

    Args:
        num_particles: K, at least 2 unless insomnia is 0.
        insomnia: share of the wake update of the guide: 1 is wake-wake, 0 is wake-sleep (as in Pyro).

    Source: Bornschein and Bengio 2015, "Reweighted Wake-Sleep"; Le et al. 2020, "Revisiting Reweighted Wake-Sleep".

    Example:

        >>> ReweightedWakeSleep(num_particles=5, insomnia=0.5).insomnia
        0.5
    """

    reparameterised = False

    def __init__(self, num_particles: int = 5, insomnia: float = 1.0):
        super().__init__(num_particles)
        if not 0 <= insomnia <= 1:
            raise ValueError(f"expected insomnia from 0 to 1, got {insomnia}")
        if insomnia > 0 and num_particles < 2:
            raise ValueError(
                f"expected at least 2 particles for the wake update of the guide, got {num_particles}: the "
                "normalised weight of a single one is always 1; use more, or insomnia=0"
            )
        self.insomnia = insomnia

    def draw(self, pair: Pair, batch: Batch, step: int | None = None) -> Particles:
        """A replay with recorded noise."""
        return pair.draw(batch, self.num_particles, record=True, step=step)

    def parts(self, particles: Particles) -> Parts:
        """Minus the bound, with the guide's gradient added."""
        fixed = particles.rescored({name: value.detach() for name, value in particles.draws.items()}, freeze=False)
        guide = fixed.guide
        fixed = replace(fixed, guide={name: site.detached() for name, site in guide.items()})
        log_weight = fixed.joint_log_weight
        loss = math.log(particles.num_particles) - log_weight.flatten(0, -2).logsumexp(0)
        if self.insomnia > 0:
            share = normalised(log_weight)
            log_q = add_up(site.log_q for site in guide.values()).expand_as(share).masked_fill(share == 0, 0.0)
            loss = loss + self.insomnia * _gradient_alone(-(share * log_q).flatten(0, -2).sum(0))
        if self.insomnia < 1:
            loss = loss + (1 - self.insomnia) * _gradient_alone(-log_q_of_simulated(particles))
        return {"negative_bound": loss}


class ForwardKL(Objective):
    """- log q(z | x) of draws (x, z) ~ p(x, z), in nats: it trains the guide alone.

    Up to the entropy of p(z | x), which the guide cannot change, it is the mean over simulated data of
    KL(p(z | x) || q(z | x)), which is large where the guide misses a mode of p(z | x). The data give the size of the
    batches, the conditions and which elements are missing, and nothing else.

    Part: "sleep". Requires a guide with ``log_prob`` at arbitrary values; otherwise raises ``ContractError``.

    Source: Hinton et al. 1995, "The Wake-Sleep Algorithm for Unsupervised Neural Networks" (the sleep phase).

    Example:

        >>> ForwardKL().num_particles
        1
    """

    reparameterised = False

    def __init__(self) -> None:
        super().__init__(num_particles=1)

    def parts(self, particles: Particles) -> Parts:
        """Minus the guide's log density at simulated latents."""
        return {"sleep": -log_q_of_simulated(particles)}


def log_q_of_simulated(particles: Particles) -> Tensor:
    """log q(z | x), summed over all latents, of one draw (x, z) ~ p for each datum; shape (B,), in nats.

    Example:

        >>> import ppvae, torch
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> model, guide = LinearGaussian(torch.eye(2), torch.zeros(2)), MeanFieldGaussian(torch.nn.Linear(2, 4))
        >>> log_q_of_simulated(ppvae.draw(model, guide, torch.zeros(3, 2))).shape
        torch.Size([3])
    """
    return add_up(site.log_prob for site in particles.source.score_simulated().values())[0]


def _gradient_alone(loss: Tensor) -> Tensor:
    """A loss of value 0 with the gradient of ``loss``."""
    return loss - loss.detach()
