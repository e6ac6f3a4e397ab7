"""What every objective is: particles in, a loss for each datum out."""

from abc import abstractmethod

import pyro.infer
from torch import Tensor

from ppvae.particles import Particles
from ppvae.replay import replay


class Objective(pyro.infer.ELBO):
    """A loss that is a function of one replay of the pair.

    To write a new one, define :meth:`per_datum`; it must not change the objective's own state, so that
    evaluating a loss never changes training. What Pyro expects of an ``ELBO`` follows from it: the
    objective works in ``pyro.infer.SVI(model, guide, optim, loss=objective)`` and as
    ``objective(model, guide)(x)``. As everywhere in Pyro, those losses are *sums* over the batch;
    :func:`ppvae.fit` divides them by the number of data.

    Args:
        num_particles: draws of the latents per datum, K.

    Attributes:
        reparameterised: whether the guide learns through its draws, so that each must be reparameterised.
    """

    reparameterised = True

    def __init__(self, num_particles: int = 1):
        if num_particles < 1:
            raise ValueError(f"expected num_particles of at least 1, got {num_particles}")
        super().__init__(num_particles=num_particles)

    @abstractmethod
    def per_datum(self, particles: Particles) -> Tensor:
        """The loss of each datum, shape (B,), in nats, to be minimised."""

    def differentiable_loss(self, model, guide, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The loss summed over the batch, as a scalar tensor with a gradient."""
        particles = replay(model, guide, x, y, self.num_particles)
        if self.reparameterised:
            particles.require_reparameterised()
        return self.per_datum(particles).sum()

    def loss(self, model, guide, x: Tensor, y: Tensor | None = None) -> float:
        """The loss summed over the batch, as a number."""
        return self.differentiable_loss(model, guide, x, y).item()

    def loss_and_grads(self, model, guide, x: Tensor, y: Tensor | None = None) -> float:
        """:meth:`loss`, with its gradient added to every parameter's ``.grad``."""
        loss = self.differentiable_loss(model, guide, x, y)
        if loss.requires_grad:
            loss.backward()
        return loss.item()

    def _get_trace(self, model, guide, args, kwargs):
        raise NotImplementedError("a ppvae objective reads particles (ppvae.draw), not pairs of traces")


def require_objective(objective) -> Objective:
    """The objective itself, or TypeError if it is one of Pyro's, which do not read particles."""
    if not isinstance(objective, Objective):
        raise TypeError(
            f"expected an objective of ppvae such as ELBO(), got {type(objective).__name__}; Pyro's own estimators can "
            "be given to fit, but not be combined"
        )
    return objective
