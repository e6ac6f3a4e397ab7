"""What every objective is: particles in, a loss for each datum out. A regulariser is a term that is added to it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import pyro.infer
from torch import Tensor

from ppvae.errors import ContractError
from ppvae.objectives.adversary import Adversary
from ppvae.particles import Particles
from ppvae.replay import replay


class Objective(pyro.infer.ELBO):
    """A loss that is a function of one replay of the pair.

    To write a new one, define :meth:`per_datum`; it must not change the objective's own state, so that
    evaluating a loss never changes training. What Pyro expects of an ``ELBO`` follows from it: the
    objective works in ``pyro.infer.SVI(model, guide, optim, loss=objective)`` and as
    ``objective(model, guide)(x)``. As everywhere in Pyro, those losses are *sums* over the batch;
    :func:`ppvae.fit` divides them by the number of data. ``objective + regulariser`` is an objective too.

    A schedule is read at the ``step`` that the loss is asked for: ``fit`` gives it, a stock loop writes
    ``svi.step(x, step=i)``.

    Args:
        num_particles: draws of the latents per datum, K.

    Attributes:
        reparameterised: whether the guide learns through its draws, so that each must be reparameterised.
        weighs_path: whether it weighs the gradient that the model sends into the draws.
        adversaries: what :func:`ppvae.fit` trains against the pair.
    """

    reparameterised = True
    weighs_path = False
    adversaries: tuple[Adversary, ...] = ()

    def __init__(self, num_particles: int = 1):
        if num_particles < 1:
            raise ValueError(f"expected num_particles of at least 1, got {num_particles}")
        super().__init__(num_particles=num_particles)

    @abstractmethod
    def per_datum(self, particles: Particles) -> Tensor:
        """The loss of each datum, shape (B,), in nats, to be minimised."""

    def replay(self, model, guide, x: Tensor, y: Tensor | None = None, step: int | None = None) -> Particles:
        """The particles that :meth:`per_datum` is a function of."""
        particles = replay(model, guide, x, y, self.num_particles, step)
        if self.reparameterised:
            particles.require_reparameterised()
        return particles

    def differentiable_loss(self, model, guide, x: Tensor, y: Tensor | None = None, step: int | None = None) -> Tensor:
        """The loss summed over the batch, as a scalar tensor with a gradient."""
        return self.per_datum(self.replay(model, guide, x, y, step)).sum()

    def loss(self, model, guide, x: Tensor, y: Tensor | None = None, step: int | None = None) -> float:
        """The loss summed over the batch, as a number."""
        return self.differentiable_loss(model, guide, x, y, step).item()

    def loss_and_grads(self, model, guide, x: Tensor, y: Tensor | None = None, step: int | None = None) -> float:
        """:meth:`loss`, with its gradient added to every parameter's ``.grad``."""
        if self.adversaries:
            raise ContractError(
                f"expected an objective that trains the pair alone, got one with {type(self.adversaries[0]).__name__}, "
                "which SVI would not train; use ppvae.fit"
            )
        loss = self.differentiable_loss(model, guide, x, y, step)
        if loss.requires_grad:
            loss.backward()
        return loss.item()

    def __add__(self, regulariser: "Regulariser") -> "Regularised":
        return Regularised(self, [regulariser])

    def _get_trace(self, model, guide, args, kwargs):
        raise NotImplementedError("a ppvae objective reads particles (ppvae.draw), not pairs of traces")


class Regulariser(ABC):
    """A term of a loss. To write a new one, define :meth:`penalty`, under the rules of :class:`Objective`.

    Attributes:
        reparameterised: whether the guide learns from it through its draws.
        reads_model: whether its gradient passes through the model's densities into the draws.
        adversary: what is trained against the pair for it, if anything.
    """

    reparameterised = False
    reads_model = False
    adversary: Adversary | None = None

    @abstractmethod
    def penalty(self, particles: Particles) -> Tensor:
        """What each datum pays, shape (B,), in nats; or a scalar, a statistic of the batch that each pays in full."""


class Regularised(Objective):
    """An objective and the regularisers that are added to it; written ``objective + regulariser + regulariser``.

    Args:
        objective: any objective of ppvae.
        regularisers: any list.

    Raises ContractError if the objective weighs the gradient that the model sends into the draws and a regulariser
    would send some of its own the same way.
    """

    def __init__(self, objective: Objective, regularisers: Sequence[Regulariser]):
        for term in regularisers:
            if not isinstance(term, Regulariser):
                raise TypeError(f"expected a regulariser such as KLWeight(4.0), got {type(term).__name__}")
        super().__init__(require_objective(objective).num_particles)
        self.objective, self.regularisers = objective, tuple(regularisers)
        readers = [type(term).__name__ for term in self.regularisers if term.reads_model]
        if objective.weighs_path and readers:
            raise ContractError(
                f"expected regularisers of the guide alone beside {type(objective).__name__}, which weighs all that "
                f"the model sends into the draws, got {', '.join(readers)}; use ELBO or IWAE"
            )

    @property
    def reparameterised(self) -> bool:
        return self.objective.reparameterised or any(term.reparameterised for term in self.regularisers)

    @property
    def weighs_path(self) -> bool:
        return self.objective.weighs_path

    @property
    def adversaries(self) -> tuple[Adversary, ...]:
        return tuple(term.adversary for term in self.regularisers if term.adversary is not None)

    def per_datum(self, particles: Particles) -> Tensor:
        return self.objective.per_datum(particles) + sum(term.penalty(particles) for term in self.regularisers)

    def __add__(self, regulariser: Regulariser) -> "Regularised":
        return Regularised(self.objective, [*self.regularisers, regulariser])


def require_objective(objective) -> Objective:
    """The objective itself, or TypeError if it is one of Pyro's, which do not read particles."""
    if not isinstance(objective, Objective):
        raise TypeError(
            f"expected an objective of ppvae such as ELBO(), got {type(objective).__name__}; Pyro's own estimators can "
            "be given to fit, but not be combined"
        )
    return objective
