"""Improving q(z) of each datum separately, with the model held fixed."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import pyro
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from ppvae.engine.batch import Batch
from ppvae.engine.isolation import evaluating, forked_randomness
from ppvae.engine.pair import Pair
from ppvae.engine.tracing import apart_from_handlers
from ppvae.errors import ContractError
from ppvae.objectives.base import Objective
from ppvae.objectives.bounds.evidence import ELBO, StickingTheLanding

Family = Callable[[Tensor], TorchDistribution]

ROUND = 8  # draws of a datum at once, where more are averaged
ROUNDS = 8  # of the scale of the features, and of the comparison at the end
RADIUS = 1.0  # length of the longest step, in units of the scales of the features
FINAL_RATE = 0.05  # of the first rate
CHECK_SEED = 1  # of the draws that both bounds are compared by
PATH = StickingTheLanding(num_particles=8)


class _AtFeatures(nn.Module):
    def __init__(self, family: Family, features: Tensor):
        super().__init__()
        self.family, self.features = family, nn.Parameter(features)

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.family(self.features))


def at_features(family: Family, features: Tensor) -> _AtFeatures:
    """A guide of site "z" with q(z) = family(features), one row a datum, for any x.

    Its only parameter is ``features``, which shares the memory of the argument.

    Example:

        >>> from ppvae.distributions.gaussians import diagonal_normal
        >>> guide = at_features(diagonal_normal, torch.zeros(3, 4))
        >>> poutine_trace = pyro.poutine.trace(guide).get_trace(torch.zeros(3, 2))
        >>> poutine_trace.nodes["z"]["value"].shape
        torch.Size([3, 2])
    """
    return _AtFeatures(family, features)


def loss_and_gradient(model: Any, guide: _AtFeatures, batch: Batch, objective: Objective) -> tuple[Tensor, Tensor]:
    """The loss of each datum, shape (B,), in nats, and its gradient by the datum's features, (B, features).

    Args:
        model: in evaluation mode; nothing of it changes.
        guide: made by :func:`at_features`.
        batch: B data.
        objective: the loss.

    Outer Pyro handlers do not apply.

    Example:

        >>> from ppvae.distributions.gaussians import diagonal_normal
        >>> from ppvae.models import LinearGaussian
        >>> model, guide = LinearGaussian(torch.eye(2), torch.zeros(2)), at_features(diagonal_normal, torch.zeros(3, 4))
        >>> loss, gradient = loss_and_gradient(model, guide, Batch(torch.zeros(3, 2)), ELBO())
        >>> loss.shape, gradient.shape
        (torch.Size([3]), torch.Size([3, 4]))
    """
    with torch.enable_grad(), evaluating(model), apart_from_handlers():
        loss = objective.per_datum(objective.particles(Pair(model, guide), batch))
        (gradient,) = torch.autograd.grad(loss.sum(), guide.features)
    return loss.detach(), gradient


def ascent(
    model: Any, family: Family, batch: Batch, features: Tensor, learning_rate: float, num_particles: int = 1
) -> Iterator[tuple[Tensor, Tensor]]:
    """Maximise the ELBO of each datum by Adam on its own features; without end.

    Args:
        model: in evaluation mode; nothing of it changes.
        family: features (B, features) -> q(z), batch shape (B,).
        batch: B data.
        features: where to start; they are not changed.
        learning_rate: of Adam.
        num_particles: draws of each step.

    Yields after each step the features, without gradient, and the bound before the step, shape (B,), in nats. Outer
    Pyro handlers do not apply.

    Example:

        >>> from ppvae.distributions.gaussians import diagonal_normal
        >>> from ppvae.models import LinearGaussian
        >>> model, batch = LinearGaussian(torch.eye(2), torch.zeros(2)), Batch(torch.zeros(3, 2))
        >>> features, bound = next(ascent(model, diagonal_normal, batch, torch.zeros(3, 4), learning_rate=0.1))
        >>> features.shape, bound.shape
        (torch.Size([3, 4]), torch.Size([3]))
    """
    guide = at_features(family, features.detach().clone())
    optimizer = torch.optim.Adam([guide.features], learning_rate)
    objective = ELBO(num_particles)
    while True:
        loss, guide.features.grad = loss_and_gradient(model, guide, batch, objective)
        optimizer.step()
        yield guide.features.detach(), -loss


def improved(
    model: Any,
    family: Family,
    batch: Batch,
    features: Tensor,
    steps: int,
    learning_rate: float,
    objective: Objective = PATH,
) -> Tensor:
    """The features of each datum after some steps of gradient ascent on its bound, (B, features), without gradient.

    With the scale s of :func:`feature_scale` at the start, each of the steps t = 0, ..., T - 1 is

        features <- features + c_t min(learning_rate, 1 / |s g|) s^2 g

    where g is the gradient of the bound and c_t falls from 1 on half a cosine to about 0.05. No step is longer than 1
    in units of s.

    The features of a datum are returned only where its bound rose, by 64 fresh draws of q at the start and at the end
    from the same random numbers; otherwise its start is returned.

    Args:
        model: in evaluation mode; nothing of it changes.
        family: features (B, features) -> q(z) with reparameterised draws, batch shape (B,).
        batch: B data.
        features: where to start; they are not changed.
        steps: T, at least 0.
        learning_rate: the first rate.
        objective: gives the gradient; :class:`StickingTheLanding` requires ``log_prob`` at arbitrary values.

    Raises ContractError for a family without reparameterised draws. Outer Pyro handlers do not apply.

    Example:

        >>> from ppvae.distributions.gaussians import diagonal_normal
        >>> from ppvae.models import LinearGaussian
        >>> model, batch = LinearGaussian(torch.eye(2), torch.zeros(2)), Batch(torch.zeros(3, 2))
        >>> improved(model, diagonal_normal, batch, torch.zeros(3, 4), steps=5, learning_rate=0.5).shape
        torch.Size([3, 4])
    """
    start, guide = features.detach(), at_features(family, features.detach().clone())
    scale = feature_scale(family, start)
    for step in range(steps):
        _, gradient = loss_and_gradient(model, guide, batch, objective)
        scaled = scale * gradient
        rate = cosine(step / steps) * (RADIUS / scaled.norm(dim=-1, keepdim=True)).clamp(max=learning_rate)
        guide.features.data -= (rate * scale * scaled).nan_to_num(0.0, 0.0, 0.0)  # a row that is not finite stays
    before, after = (_bound(model, at_features(family, at), batch) for at in (start, guide.features))
    return torch.where((after > before).unsqueeze(-1), guide.features.detach(), start)


def cosine(done: float) -> float:
    """The share of the first rate after a share of the steps: half a cosine, from 1 to 0.05.

    Example:

        >>> cosine(0.0), round(cosine(0.5), 3), cosine(1.0)
        (1.0, 0.525, 0.05)
    """
    return FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * done))


def _bound(model: Any, guide: _AtFeatures, batch: Batch) -> Tensor:
    """The ELBO of each datum, shape (B,), in nats, with the same random numbers in each call."""
    pair = Pair(model, guide)
    with torch.no_grad(), evaluating(model), apart_from_handlers(), forked_randomness(batch.x.device, CHECK_SEED):
        return torch.stack([pair.draw(batch, ROUND).log_weight.mean(0) for _ in range(ROUNDS)]).mean(0)


def feature_scale(family: Family, features: Tensor, rounds: int = ROUNDS) -> Tensor:
    """The change of each feature that moves q(z) by about one standard deviation, at most 1; shape (B, features).

        s_i = (1 + E sum_d [(dz_d / d features_i) / sd(z_d)]^2)^(-1/2)

    A step of length 1 in these units moves q(z) about as much for a feature of any kind. The 1 keeps features on which
    q hardly depends from moving far.

    Args:
        family: features (B, features) -> q(z) with reparameterised draws z, batch shape (B,).
        features: (B, features).
        rounds: of 8 draws each, for the expectation.

    Raises ContractError for a family without reparameterised draws.

    Example:

        >>> from ppvae.distributions.gaussians import diagonal_normal
        >>> _ = torch.manual_seed(0)
        >>> mean_and_log_scale = torch.tensor([[0.0, -2.0]])
        >>> feature_scale(diagonal_normal, mean_and_log_scale, rounds=1000).round(decimals=1)
        tensor([[0.1000, 0.7000]])
    """
    q = family(features)
    if not q.has_rsample:
        raise ContractError(f"expected a q(z) with reparameterised draws (rsample), got {q}; use another guide")
    spread, square = q.sample((ROUND * rounds,)).std(0), torch.zeros_like(features)
    for _ in range(rounds):
        rows = features.detach().repeat(ROUND, 1).requires_grad_()
        with torch.enable_grad():
            z = family(rows).rsample().unflatten(0, (ROUND, -1))
            # Random signs: the square of the sum has the sum of the squares as its mean.
            (moved,) = torch.autograd.grad((torch.randn_like(z).sign() * z / spread).sum(), rows)
        square += moved.unflatten(0, (ROUND, -1)).square().mean(0)
    return (1 + square / rounds).rsqrt()
