"""Improving q(z) of each datum separately, with the model held fixed."""

from collections.abc import Callable, Iterator
from typing import Any

import pyro
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from ppvae.engine.batch import Batch
from ppvae.engine.isolation import evaluating
from ppvae.engine.pair import Pair
from ppvae.engine.tracing import apart_from_handlers
from ppvae.objectives.bounds.evidence import ELBO

Family = Callable[[Tensor], TorchDistribution]
LocalGuide = Callable[..., None]


def at_features(family: Family, features: Tensor) -> LocalGuide:
    """A guide of site "z" with q(z) = family(features), one row a datum, for any x.

    Example:

        >>> from ppvae.distributions.gaussians import diagonal_normal
        >>> guide = at_features(diagonal_normal, torch.zeros(3, 4))
        >>> poutine_trace = pyro.poutine.trace(guide).get_trace(torch.zeros(3, 2))
        >>> poutine_trace.nodes["z"]["value"].shape
        torch.Size([3, 2])
    """

    def guide(x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", family(features))

    return guide


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
    features = features.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([features], learning_rate)
    objective = ELBO(num_particles)
    while True:
        with torch.enable_grad(), evaluating(model), apart_from_handlers():
            pair = Pair(model, at_features(family, features))
            loss = objective.per_datum(pair.draw(batch, num_particles))
            (features.grad,) = torch.autograd.grad(loss.sum(), features)
        optimizer.step()
        yield features.detach(), -loss.detach()


def improved(model: Any, family: Family, batch: Batch, features: Tensor, steps: int, learning_rate: float) -> Tensor:
    """The features after a number of steps of :func:`ascent`.

    Example:

        >>> from ppvae.distributions.gaussians import diagonal_normal
        >>> from ppvae.models import LinearGaussian
        >>> model, batch = LinearGaussian(torch.eye(2), torch.zeros(2)), Batch(torch.zeros(3, 2))
        >>> improved(model, diagonal_normal, batch, torch.zeros(3, 4), steps=5, learning_rate=0.1).shape
        torch.Size([3, 4])
    """
    climb = ascent(model, family, batch, features, learning_rate)
    for _ in range(steps):
        features, _ = next(climb)
    return features
