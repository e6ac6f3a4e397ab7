"""A constraint on the distortion, with a Lagrange multiplier that is trained with the pair."""

import math
from functools import partial

import torch
from torch import Tensor, nn

from ppvae.engine.particles import Particles
from ppvae.engine.player import Player, Turn
from ppvae.objectives.base import Parts, Regulariser, unused
from ppvae.objectives.bounds.evidence import distortion


class ConstrainedReconstruction(Regulariser):
    """The least rate at a distortion of T: the loss becomes KL + lambda (D - T), D = - E_q log p(x | z).

    It completes the distortion by the part "constraint", (lambda - 1) D - lambda T.

    The multiplier lambda = exp(l) is trained with the pair: l rises by ``speed * (D - T) / |T|`` a step, and by
    ``speed`` at most, with an exponential average of D over the batches so far. ``fit`` logs it as
    "multiplier/distortion".

    Args:
        tolerance: T, in nats a datum; not 0.
        speed: of l.
        decay: of the average of D, from 0 to below 1.
        limit: lambda stays between 1 / limit and limit; a tolerance that needs more is not reached.

    Source: Rezende and Viola 2018, "Taming VAEs", algorithm 1. There the constraint is on a squared error, and neither
    the multiplier nor its step is bounded, nor the step divided by the tolerance: at the start of training D is far
    from T, and lambda would grow far beyond its final value before the pair adapts.

    Example:

        >>> import ppvae
        >>> objective = ppvae.ELBO() + ppvae.ConstrainedReconstruction(tolerance=60.0)
        >>> [player.name for player in objective.players]
        ['constraint/distortion']
    """

    over_batch = False
    completes = "distortion"

    def __init__(self, tolerance: float, speed: float = 0.01, decay: float = 0.99, limit: float = 100.0):
        self.multiplier = Multiplier(tolerance, decay, limit)
        self.tolerance, self.speed, self.decay, self.limit = tolerance, speed, decay, limit
        if not 0 < speed < math.inf:
            raise ValueError(f"expected speed above 0, got {speed}")
        optimizer = partial(torch.optim.SGD, lr=speed)
        multiplier = self.multiplier
        self.players = (Player("constraint/distortion", multiplier, multiplier.loss, optimizer, log=multiplier.log),)

    def apply(self, parts: Parts, particles: Particles) -> Parts:
        """The parts and the constraint."""
        weight = self.multiplier.value()
        constraint = (weight - 1) * parts["distortion"] - weight * self.tolerance
        return {**parts, unused("constraint", parts): constraint}


class Multiplier(nn.Module):
    """The Lagrange multiplier of a constraint on the distortion; see :class:`ConstrainedReconstruction`.

    Example:

        >>> Multiplier(tolerance=60.0, decay=0.99, limit=100.0).log()
        {'multiplier/distortion': tensor(1.)}
    """

    log_multiplier: nn.Parameter
    average: Tensor
    weight: Tensor

    def __init__(self, tolerance: float, decay: float, limit: float):
        if not 0 < abs(tolerance) < math.inf or not 0 <= decay < 1:
            raise ValueError(
                f"expected tolerance finite and other than 0, and decay in [0, 1), got {tolerance} and {decay}"
            )
        if not 1 < limit < math.inf:
            raise ValueError(f"expected limit above 1 and finite, got {limit}")
        super().__init__()
        self.tolerance, self.decay, self.log_limit = tolerance, decay, math.log(limit)
        self.log_multiplier = nn.Parameter(torch.zeros(()))
        self.register_buffer("average", torch.zeros((), dtype=torch.float64))
        self.register_buffer("weight", torch.zeros((), dtype=torch.float64))

    def value(self) -> Tensor:
        """lambda, without gradient."""
        return self.log_multiplier.detach().clamp(-self.log_limit, self.log_limit).exp()

    def log(self) -> dict[str, Tensor]:
        """lambda by the name in the log."""
        return {"multiplier/distortion": self.value()}

    def loss(self, turn: Turn) -> Tensor:
        """- l (average of D - T) / |T|: its descent raises l where D is above T."""
        with torch.no_grad():
            self.log_multiplier.clamp_(-self.log_limit, self.log_limit)  # so that it comes back at once
            mean = torch.cat([distortion(particles) for particles in turn.particles]).mean()
            self.average.lerp_(mean.to(self.average), 1 - self.decay)
            self.weight.lerp_(torch.ones_like(self.weight), 1 - self.decay)
            violation = (self.average / self.weight - self.tolerance) / abs(self.tolerance)
        return -self.log_multiplier * violation.clamp(-1, 1).to(self.log_multiplier)
