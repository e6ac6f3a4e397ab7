"""What every objective is: a function of particles that gives named parts, and the loss is their sum."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Container, Mapping, Sequence
from typing import Any, Literal

import pyro.infer
import torch
from torch import Tensor

from ppvae.engine.batch import Array, Batch, as_batch
from ppvae.engine.pair import Pair, dtype_of
from ppvae.engine.particles import Particles, add_up
from ppvae.engine.player import Player
from ppvae.engine.tracing import OBSERVED
from ppvae.errors import ContractError, require_count

Parts = dict[str, Tensor]
Completable = Literal["rate", "distortion"]


class Objective(pyro.infer.ELBO):
    """A loss with named parts, a function of one replay of the pair.

    To write a new one, define :meth:`parts`. It must not change the objective's own state, so that evaluating a loss
    never changes training. The methods of a Pyro ``ELBO`` follow from it: the objective works in
    ``pyro.infer.SVI(model, guide, optim, loss=objective)`` and as ``objective(model, guide)(x)``. As everywhere in
    Pyro, those losses are *sums* over the batch; :func:`ppvae.fit` divides them by the number of data.
    ``objective + term`` is an objective too.

    A schedule is read at the ``step`` of the loss: ``fit`` gives it, a stock loop writes ``svi.step(x, step=i)``.

    Args:
        num_particles: draws of the latents per datum, K.

    Attributes:
        reparameterised: whether the guide learns through its draws, so that each must be reparameterised.
        over_batch: whether the loss of a datum depends on the other data of its batch.
        completable: the parts that a term can replace or complete.
        players: critics and multipliers; :func:`ppvae.fit` trains them with the pair.

    Example:

        >>> class SquaredError(Objective):
        ...     def parts(self, particles):
        ...         x, mean = particles.batch.x, particles.model["x"].distribution.mean
        ...         return {"squared_error": (x - mean).square().flatten(2).sum(-1).mean(0)}
    """

    reparameterised = True
    over_batch = False
    completable: tuple[Completable, ...] = ()
    players: tuple[Player, ...] = ()

    def __init__(self, num_particles: int = 1):
        super().__init__(num_particles=require_count("num_particles", num_particles))

    @abstractmethod
    def parts(self, particles: Particles) -> Parts:
        """The loss by named parts, in nats.

        Each is (B,), or a scalar, a statistic of the batch that counts in full for each datum.
        """

    def per_datum(self, particles: Particles) -> Tensor:
        """The loss of each datum, shape (B,), in nats: the sum of the parts."""
        return total(self.parts(particles), particles.batch_size)

    def particles(self, pair: Pair, batch: Batch, step: int | None = None) -> Particles:
        """The replay that :meth:`parts` is a function of."""
        particles = self.draw(pair, batch, step)
        if self.reparameterised:
            particles.require_reparameterised()
        return particles

    def draw(self, pair: Pair, batch: Batch, step: int | None = None) -> Particles:
        """The same without a check. An estimator that scores draws again records the guide's noise here."""
        return pair.draw(batch, self.num_particles, step=step)

    def differentiable_loss(
        self, model: Any, guide: Any, x: Array, y: Array | None = None, step: int | None = None, **given: Array
    ) -> Tensor:
        """The loss summed over the batch, as a scalar tensor with a gradient."""
        if self.players and torch.is_grad_enabled():
            raise ContractError(
                "expected an objective that trains the pair alone, got one that also trains "
                f"{self.players[0].name!r}, which a stock loop does not do; use ppvae.fit"
            )
        batch = as_batch(x, y, given, dtype_of(model, guide))
        return self.per_datum(self.particles(Pair(model, guide), batch, step)).sum()

    def loss(
        self, model: Any, guide: Any, x: Array, y: Array | None = None, step: int | None = None, **given: Array
    ) -> float:
        """The loss summed over the batch, as a number."""
        with torch.no_grad():
            return self.differentiable_loss(model, guide, x, y, step, **given).item()

    def loss_and_grads(
        self, model: Any, guide: Any, x: Array, y: Array | None = None, step: int | None = None, **given: Array
    ) -> float:
        """:meth:`loss`, with its gradient added to every parameter's ``.grad``."""
        loss = self.differentiable_loss(model, guide, x, y, step, **given)
        if loss.requires_grad:
            loss.backward()
        return loss.item()

    def __add__(self, term: "Regulariser") -> "Regularised":
        return Regularised(self, [term])

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Any:
        raise NotImplementedError("a ppvae objective reads particles (ppvae.draw), not pairs of traces")


def total(parts: Mapping[str, Tensor], batch_size: int) -> Tensor:
    """The sum of the parts for each datum, shape (B,).

    Example:

        >>> total({"distortion": torch.ones(3), "penalty": torch.tensor(0.5)}, batch_size=3)
        tensor([1.5000, 1.5000, 1.5000])
    """
    return add_up(parts.values()).expand(batch_size)


class Regulariser(ABC):
    """A term of a loss: it adds a part, or replaces or completes one. Define :meth:`apply`.

    A term that adds a part is a :class:`Penalty`. The defaults of the attributes are safe for every term.

    Attributes:
        last: whether it is applied after all other terms, in any place of the sum.
        reparameterised: whether the guide learns from it through its draws.
        over_batch: whether the term of a datum depends on the other data of its batch.
        completes: the part that it replaces or completes; it is refused by an objective without that part, and
            together with another term that completes the same.
        site: the latent that it reads; None for all.
        num_data: the rows of the training set, if the term depends on them; :func:`ppvae.fit` checks it.
        players: its critic or multiplier, if it has one; trained with the pair.

    Example:

        >>> class Doubled(Regulariser):
        ...     completes, over_batch = "rate", False
        ...     def apply(self, parts, particles):
        ...         return {**parts, "rate/z": 2 * parts["rate/z"]}
        >>> import ppvae
        >>> [type(term).__name__ for term in (ppvae.ELBO() + Doubled()).regularisers]
        ['Doubled']
    """

    last: bool = False
    reparameterised: bool = True
    over_batch: bool = True
    completes: Completable | None = None
    site: str | None = None
    num_data: int | None = None
    players: tuple[Player, ...] = ()

    @abstractmethod
    def apply(self, parts: Parts, particles: Particles) -> Parts:
        """The parts with this term in them. ``parts`` itself is not changed."""


class Penalty(Regulariser):
    """A term that adds a part. Define :attr:`label` and :meth:`penalty`.

    Attributes:
        label: name of the part; "label/site" where there is a site.

    Example:

        >>> class SmallMeans(Penalty):
        ...     label, site = "small_means", "z"
        ...     def penalty(self, particles):
        ...         return particles.latent(self.site).distribution.mean.square().sum(-1).mean(0)
    """

    label: str

    @abstractmethod
    def penalty(self, particles: Particles) -> Tensor:
        """The term of each datum, shape (B,), in nats.

        It can be a scalar instead, a statistic of the batch that counts in full for each datum.


        Where some rows of a step are labelled and some are not, they are two batches here.
        """

    def apply(self, parts: Parts, particles: Particles) -> Parts:
        """The parts and the penalty."""
        name = self.label if self.site is None else f"{self.label}/{self.site}"
        return {**parts, unused(name, parts): self.penalty(particles)}


def unused(name: str, parts: Container[str]) -> str:
    """The name, with a number where there is a part of that name already.

    Example:

        >>> unused("penalty", {"penalty"})
        'penalty#2'
    """
    numbered = (f"{name}#{number}" for number in itertools.count(2))
    return next(each for each in itertools.chain([name], numbered) if each not in parts)


def rates(parts: Parts, site: str | None, particles: Particles) -> list[str]:
    """The names of the rates of one latent, or of all.

    Raises ContractError if the pair has no such site. A label that is known has no rate.

    Example:

        >>> import ppvae
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> model, guide = LinearGaussian(torch.eye(2), torch.zeros(2)), MeanFieldGaussian(torch.nn.Linear(2, 4))
        >>> particles = ppvae.draw(model, guide, torch.zeros(3, 2))
        >>> rates(ppvae.ELBO().parts(particles), None, particles)
        ['rate/z']
    """
    if site is None:
        return [name for name in parts if name.startswith("rate/")]
    if f"rate/{site}" not in parts and not _is_known_label(site, particles):
        raise ContractError(
            f"expected a part 'rate/{site}' to replace, got {sorted(parts)}; name a latent of the pair in site="
        )
    return [f"rate/{site}"] if f"rate/{site}" in parts else []


def _is_known_label(site: str, particles: Particles) -> bool:
    observed = site != OBSERVED and site in particles.model and particles.model[site].observed
    return observed and particles.batch.label is not None


class Regularised(Objective):
    """An objective with terms; written ``objective + term + term``.

    Args:
        objective: any objective of ppvae; one that is regularised already keeps its terms.
        regularisers: the terms, each once.

    Raises:
        ContractError: a term completes a part that the objective does not have, or that another term completes.

    Example:

        >>> import ppvae
        >>> objective = ppvae.ELBO() + ppvae.KLWeight(4.0)
        >>> [type(term).__name__ for term in objective.regularisers]
        ['KLWeight']
    """

    def __init__(self, objective: Objective, regularisers: Sequence[Regulariser]):
        if isinstance(objective, Regularised):
            regularisers = [*objective.regularisers, *regularisers]
            objective = objective.objective
        super().__init__(require_objective(objective).num_particles)
        self.objective: Objective = objective
        self.regularisers: tuple[Regulariser, ...] = tuple(sorted(regularisers, key=_comes_last))
        for term in self.regularisers:
            _check_term(objective, term)
        if len(set(map(id, self.regularisers))) < len(self.regularisers):
            raise ValueError("expected each regulariser once, got one of them twice; make another")
        for pair in itertools.combinations(self.regularisers, 2):
            _check_apart(*pair)
        self.reparameterised = objective.reparameterised or any(term.reparameterised for term in self.regularisers)
        self.over_batch = objective.over_batch or any(term.over_batch for term in self.regularisers)
        self.players = (*objective.players, *(player for term in self.regularisers for player in term.players))

    def draw(self, pair: Pair, batch: Batch, step: int | None = None) -> Particles:
        """The replay of the objective itself."""
        return self.objective.draw(pair, batch, step)

    def parts(self, particles: Particles) -> Parts:
        """The objective's parts, with each term applied in turn."""
        parts = self.objective.parts(particles)
        for term in self.regularisers:
            parts = term.apply(parts, particles)
        return parts


def _comes_last(term: Any) -> bool:
    return getattr(term, "last", False)


def _check_term(objective: Objective, term: Regulariser) -> None:
    if not isinstance(term, Regulariser):
        got = f"the class {term.__name__} itself" if isinstance(term, type) else type(term).__name__
        raise TypeError(f"expected a term such as KLWeight(4.0), got {got}")
    if term.completes is not None and term.completes not in objective.completable:
        raise ContractError(
            f"expected an objective with a {term.completes} for {type(term).__name__} to complete, such as ELBO or "
            f"StickingTheLanding, got {type(objective).__name__}"
        )


def _check_apart(one: Regulariser, other: Regulariser) -> None:
    same_site = one.site is None or other.site is None or one.site == other.site
    if one.completes is not None and one.completes == other.completes and same_site:
        raise ContractError(
            f"expected one term to complete the {one.completes}, got {type(one).__name__} and "
            f"{type(other).__name__}; where its weight changes in training, give one a schedule: "
            "KLWeight(warm_up(10_000, 4.0))"
        )


def require_objective(objective: Any) -> Objective:
    """The objective itself, or TypeError if it is one of Pyro's, which do not read particles.

    Example:

        >>> import ppvae
        >>> require_objective(ppvae.ELBO(num_particles=5)).num_particles
        5
    """
    if not isinstance(objective, Objective):
        got = f"the class {objective.__name__} itself" if isinstance(objective, type) else type(objective).__name__
        raise TypeError(
            f"expected an objective of ppvae such as ELBO(), got {got}; Pyro's own estimators can be given to fit, but "
            "not be combined"
        )
    return objective
