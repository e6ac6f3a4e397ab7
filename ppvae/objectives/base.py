"""What every objective is: particles in, a loss for each datum out. A regulariser is a term that is added to it."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import pyro.infer
import torch
from torch import Tensor

from ppvae.engine.pair import replay
from ppvae.engine.particles import Particles
from ppvae.errors import ContractError
from ppvae.objectives.critics import Adversary

Kind = Literal["elbo", "bound", "other"]


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
        kind: "elbo" for distortion and rate, "bound" for another bound, "other" for what is none.
        over_batch: whether the loss of a datum depends on the others of its batch.
        adversaries: what :func:`ppvae.fit` trains against the pair.
    """

    reparameterised = True
    weighs_path = False
    over_batch = False
    kind: Kind = "bound"
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
        if self.adversaries and torch.is_grad_enabled():
            raise ContractError(
                f"expected an objective that trains the pair alone, got one with {type(self.adversaries[0]).__name__}, "
                "which only ppvae.fit trains with it; use fit"
            )
        return self.per_datum(self.replay(model, guide, x, y, step)).sum()

    def loss(self, model, guide, x: Tensor, y: Tensor | None = None, step: int | None = None) -> float:
        """The loss summed over the batch, as a number."""
        with torch.no_grad():
            return self.differentiable_loss(model, guide, x, y, step).item()

    def loss_and_grads(self, model, guide, x: Tensor, y: Tensor | None = None, step: int | None = None) -> float:
        """:meth:`loss`, with its gradient added to every parameter's ``.grad``."""
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
        over_batch: whether what a datum pays depends on the others of its batch.
        beside: the kinds of objective that it can be added to.
        sets: the part of the loss whose weight it sets, "rate" or "distortion", which one term alone can; else None.
        site: the latent that it reads; None for all of them.
        num_data: the rows of the training set, where it counts on them; :func:`ppvae.fit` checks it.
        adversary: what is trained against the pair for it, if anything.
    """

    reparameterised = False
    reads_model = False
    over_batch = False
    beside: tuple[Kind, ...] = ("elbo", "bound", "other")
    sets: Literal["rate", "distortion"] | None = None
    site: str | None = None
    num_data: int | None = None
    adversary: Adversary | None = None

    @abstractmethod
    def penalty(self, particles: Particles) -> Tensor:
        """What each datum pays, shape (B,), in nats; or a scalar, a statistic of the batch that each pays in full.

        Where some rows of a step are labelled and some are not, they are two batches here."""


class Regularised(Objective):
    """An objective and the regularisers that are added to it; written ``objective + regulariser + regulariser``.

    Args:
        objective: any objective of ppvae; one that is regularised already keeps its terms.
        regularisers: any list, each once.

    Raises ContractError for a regulariser that means nothing beside this objective: it completes or takes the place of
    a part of the loss that is not there, or its gradient would be weighed by DReG or ReweightedWakeSleep; and for two
    that set the weight of one part.
    """

    kind = "other"

    def __init__(self, objective: Objective, regularisers: Sequence[Regulariser]):
        if isinstance(objective, Regularised):
            objective, regularisers = objective.objective, [*objective.regularisers, *regularisers]
        super().__init__(require_objective(objective).num_particles)
        self.objective, self.regularisers = objective, tuple(regularisers)
        for term in self.regularisers:
            _check_beside(objective, term)
        if len(set(map(id, self.regularisers))) < len(self.regularisers):
            raise ValueError("expected each regulariser once, got one of them twice; make another")
        for pair in itertools.combinations(self.regularisers, 2):
            _check_apart(*pair)

    @property
    def reparameterised(self) -> bool:
        return self.objective.reparameterised or any(term.reparameterised for term in self.regularisers)

    @property
    def over_batch(self) -> bool:
        return self.objective.over_batch or any(term.over_batch for term in self.regularisers)

    @property
    def adversaries(self) -> tuple[Adversary, ...]:
        return tuple(term.adversary for term in self.regularisers if term.adversary is not None)

    def per_datum(self, particles: Particles) -> Tensor:
        return self.objective.per_datum(particles) + sum(term.penalty(particles) for term in self.regularisers)


def _check_beside(objective: Objective, term: Regulariser) -> None:
    if not isinstance(term, Regulariser):
        raise TypeError(f"expected a regulariser such as KLWeight(4.0), got {type(term).__name__}")
    name, of = type(term).__name__, type(objective).__name__
    if objective.kind not in term.beside:
        weighs = objective.kind in type(term).beside  # but not with this one's weights
        wanted = "a bound such as ELBO or IWAE" if "bound" in term.beside else "ELBO or StickingTheLanding"
        raise ContractError(
            f"expected {wanted} beside {name}, which completes a part of its loss, got {of}"
            + ("; a weight that is below 1, or may be as a schedule other than a Ramp may, needs it" if weighs else "")
        )
    if objective.weighs_path and term.reads_model:
        raise ContractError(
            f"expected regularisers of the guide alone beside {of}, which weighs all that the model sends into the "
            f"draws, got {name}; use ELBO or IWAE"
        )


def _check_apart(one: Regulariser, other: Regulariser) -> None:
    same_site = one.site is None or other.site is None or one.site == other.site
    if one.sets is not None and one.sets == other.sets and same_site:
        raise ContractError(
            f"expected one term to set the weight of the {one.sets}, got {type(one).__name__} and "
            f"{type(other).__name__}; where it changes in training, give one a schedule: KLWeight(warm_up(10_000, 4.0))"
        )


def require_objective(objective) -> Objective:
    """The objective itself, or TypeError if it is one of Pyro's, which do not read particles."""
    if not isinstance(objective, Objective):
        raise TypeError(
            f"expected an objective of ppvae such as ELBO(), got {type(objective).__name__}; Pyro's own estimators can "
            "be given to fit, but not be combined"
        )
    return objective
