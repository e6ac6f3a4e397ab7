"""Improving q(z) of each datum on its own, with the model held fixed."""

from collections.abc import Callable, Iterator

import pyro
import torch
from pyro.distributions.distribution import Distribution
from torch import Tensor

from ppvae.engine.isolation import evaluating
from ppvae.engine.pair import replay
from ppvae.engine.tracing import apart_from_handlers
from ppvae.objectives import ELBO

Family = Callable[[Tensor], Distribution]


def at_features(family: Family, features: Tensor):
    """A guide of site "z" with q(z) = family(features), one row a datum, whatever x is."""

    def guide(x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", family(features))

    return guide


def ascent(
    model, family: Family, x: Tensor, features: Tensor, learning_rate: float, num_particles: int = 1
) -> Iterator[tuple[Tensor, Tensor]]:
    """Climb the ELBO of each datum by Adam on its own features; without end.

    Args:
        model: in evaluation mode; nothing of it changes.
        family: features (B, features) -> q(z), batch shape (B,).
        x: data, shape (B, *event_shape).
        features: to start from; they are left as they are.

    Yields after each step the features, no gradient, and the bound before the step, shape (B,), in nats. Handlers
    outside see nothing of it.
    """
    features = features.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([features], learning_rate)
    objective = ELBO(num_particles)
    while True:
        with torch.enable_grad(), evaluating(model), apart_from_handlers():
            loss = objective.per_datum(replay(model, at_features(family, features), x, None, num_particles))
            (features.grad,) = torch.autograd.grad(loss.sum(), features)
        optimizer.step()
        yield features.detach(), -loss.detach()


def improved(model, family: Family, x: Tensor, features: Tensor, steps: int, learning_rate: float) -> Tensor:
    """The features after a number of steps of :func:`ascent`."""
    climb = ascent(model, family, x, features, learning_rate)
    for _ in range(steps):
        features, _ = next(climb)
    return features
