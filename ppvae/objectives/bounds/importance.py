"""Importance-weighted bounds and their gradient estimators."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ppvae.engine.batch import Batch
from ppvae.engine.pair import Pair
from ppvae.engine.particles import Draws, Particles
from ppvae.errors import ContractError
from ppvae.objectives.base import Objective, Parts

CLOSE_TO_ELBO = 0.01  # |1 - alpha| below which Renyi's bound is computed from what its mean exceeds 1 by


class IWAE(Objective):
    """Importance-weighted bound, log p(x) >= E log 1/K sum_k p(x, z_k) / q(z_k | x), per datum, in nats.

    Enumerated sites are summed out inside each weight, w_k = sum_y p(x, y, z_k) / q(z_k | x, y), so that the
    bound is exact in them. It does not depend on q(y | x), which needs a term of its own (``ClassifierLoss``).
    With one particle and no discrete site it is the ELBO. Equals ``RenyiELBO(alpha=0)`` where Pyro's is right.

    Part: "negative_bound".

    Args:
        num_particles: K; more never loosens the bound.

    Source: Burda, Grosse and Salakhutdinov 2016, "Importance Weighted Autoencoders", equation 8.

    Example:

        >>> IWAE(num_particles=50).num_particles
        50
    """

    def parts(self, particles: Particles) -> Parts:
        """Minus the bound."""
        return {"negative_bound": math.log(particles.num_particles) - particles.log_weight.logsumexp(0)}


class DReG(Objective):
    """The importance-weighted bound, with the doubly reparameterised gradient for the guide.

    The loss is that of :class:`IWAE`, and so is the model's gradient. The guide's, with u_k = w_k / sum_j w_j, is

        sum_k u_k^2  d log w_k / dz_k  dz_k / dphi

    which has the same mean, and a signal-to-noise ratio that grows with K instead of falling. Where classes are
    enumerated and z is drawn for each of them, u runs over classes and particles both; q(y | x) gets no gradient, as
    with :class:`IWAE`.

    Requires reparameterised draws and a guide with ``log_prob`` at arbitrary values; otherwise it raises
    ``ContractError``.

    Args:
        num_particles: K.

    Source: Tucker et al. 2019, "Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives", equation 8.

    Example:

        >>> DReG(num_particles=50).num_particles
        50
    """

    def draw(self, pair: Pair, batch: Batch, step: int | None = None) -> Particles:
        """A replay with recorded noise."""
        return pair.draw(batch, self.num_particles, record=True, step=step)

    def parts(self, particles: Particles) -> Parts:
        """Minus the bound."""
        _require_alike(particles)
        path = PathScale()
        log_weight = particles.rescored(path.through(particles), freeze=True).joint_log_weight
        path.weight = normalised(log_weight)
        return {"negative_bound": math.log(particles.num_particles) - log_weight.flatten(0, -2).logsumexp(0)}


@dataclass(eq=False)
class PathScale:
    """Draws with the same numbers, where the gradient that flows back into the guide is multiplied by a weight.

    Attributes:
        weight: shape (enumeration..., K, B), set after the densities at the draws are known and before the gradient is
            taken. It is summed over enumerated sites that a draw does not depend on.

    Example:

        >>> import ppvae
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> model, guide = LinearGaussian(torch.eye(2), torch.zeros(2)), MeanFieldGaussian(torch.nn.Linear(2, 4))
        >>> particles = ppvae.draw(model, guide, torch.zeros(3, 2), num_particles=5)
        >>> PathScale().through(particles)["z"].equal(particles.draws["z"])
        True
    """

    weight: Tensor | None = None

    def through(self, particles: Particles) -> Draws:
        """The particles' draws, with the scaled path."""
        return {
            name: _ScaledPath.apply(value, particles.guide[name].distribution.event_dim, self)
            for name, value in particles.draws.items()
        }


class _ScaledPath(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, event_dim: int, scale: PathScale) -> Tensor:
        ctx.event_dim, ctx.scale = event_dim, scale
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        batch_shape = gradient.shape[: gradient.dim() - ctx.event_dim]
        factor = ctx.scale.weight.sum_to_size(batch_shape).reshape(batch_shape + (1,) * ctx.event_dim)
        return torch.where(factor == 0, 0.0, gradient * factor), None, None


class Renyi(Objective):
    """Renyi's variational bound of order alpha, per datum, in nats, with w_k = p(x, z_k) / q(z_k | x):

        E 1/(1 - alpha) log 1/K sum_k w_k^(1 - alpha)

    alpha = 0 is :class:`IWAE`; the limits are max_k log w_k (alpha = -inf) and min_k log w_k (alpha = inf). It falls
    with alpha. For alpha >= 0 it is a lower bound of log p(x) for every K; for alpha < 0 its limit K -> inf is an
    upper bound, and finite K may be on either side.

    Part: "negative_bound".

    Args:
        alpha: any real number but 1, or minus or plus infinity. At 1 the bound is ``ELBO``.
        num_particles: K.

    Source: Li and Turner 2016, "Renyi Divergence Variational Inference", equations 7 and 14.

    Example:

        >>> Renyi(alpha=0.5, num_particles=10).alpha
        0.5
    """

    def __init__(self, alpha: float, num_particles: int = 2):
        super().__init__(num_particles)
        if alpha == 1 or math.isnan(alpha):
            raise ValueError(f"expected alpha other than 1, got {alpha}; use ELBO(), which is the limit at 1")
        self.alpha = float(alpha)

    def parts(self, particles: Particles) -> Parts:
        """Minus the bound."""
        return {"negative_bound": -log_power_mean(particles.log_weight, 1 - self.alpha)}


def log_power_mean(log_weight: Tensor, power: float) -> Tensor:
    """1/p log 1/K sum_k w_k^p of log weights (K, B), shape (B,), in nats, for p other than 0.

    A weight of 0 counts as its limit: it adds nothing for p > 0, and gives -inf for p < 0.

    Example:

        >>> log_weight = torch.tensor([[1.0], [3.0]]).log()
        >>> log_power_mean(log_weight, power=1.0).exp(), log_power_mean(log_weight, power=math.inf).exp()
        (tensor([2.]), tensor([3.]))
    """
    if math.isinf(power):
        return log_weight.amax(0) if power > 0 else log_weight.amin(0)
    log_size = math.log(len(log_weight))
    if abs(power) >= CLOSE_TO_ELBO:
        return ((power * log_weight).logsumexp(0) - log_size) / power
    # The mean of powers is close to 1, unless the weights are far apart: its logarithm comes from mean - 1.
    centre = (log_weight.amax(0) if power > 0 else log_weight.amin(0)).clamp(min=torch.finfo(log_weight.dtype).min)
    scaled = power * (log_weight - centre)
    less_one = scaled.expm1().mean(0)
    near, far = less_one.clamp(min=-0.5).log1p(), scaled.logsumexp(0) - log_size
    return centre + torch.where(less_one > -0.5, near, far) / power


def _require_alike(particles: Particles) -> None:
    """A latent drawn once for all classes, and one below it drawn for each, would need two different weights."""
    shapes = {name: particles.guide[name].distribution.batch_shape for name in particles.draws}
    if len(set(shapes.values())) > 1:
        raise ContractError(
            f"expected latents that are all drawn for the same enumerated sites, got batch shapes {shapes}; use IWAE"
        )


def normalised(log_weight: Tensor) -> Tensor:
    """The share of each weight in its datum's sum, (enumeration..., K, B), without gradient.

    Example:

        >>> normalised(torch.tensor([[1.0], [3.0]]).log()).flatten()
        tensor([0.2500, 0.7500])
    """
    return log_weight.detach().flatten(0, -2).softmax(0).reshape(log_weight.shape)
