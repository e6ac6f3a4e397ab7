"""The gaps of a guide: by its family of distributions, and by amortizing them.

    log p(x)  -  L[q*]  =  approximation gap     q*: the best of the guide's family for this datum alone
    L[q*]     -  L[q]   =  amortization gap      q:  the guide itself

Source: Cremer, Li and Duvenaud 2018, "Inference Suboptimality in Variational Autoencoders", equations 2 to 4.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from ppvae.distributions.gaussians import diagonal_normal
from ppvae.engine.batch import Array, Batch, HasBatch
from ppvae.engine.contract import AmortizedGuide
from ppvae.engine.evaluation import evaluation
from ppvae.engine.pair import Pair
from ppvae.evaluation.likelihood.importance import encode, estimate, log_marginal
from ppvae.evaluation.likelihood.marginal import LogMarginal, Weights
from ppvae.evaluation.likelihood.per_datum import PerDatum
from ppvae.evaluation.likelihood.stages import Choice
from ppvae.evaluation.progress import blocks, tracked
from ppvae.evaluation.requirements import require_amortized
from ppvae.objectives.base import require_count
from ppvae.objectives.local import Family, at_features
from ppvae.objectives.local import ascent as climb

WINDOW = 100  # steps over which the bound is averaged, to see whether it still rises
MOMENT_DRAWS = 100  # of the guide, where the best diagonal Gaussian starts


@dataclass(frozen=True, eq=False)
class Bound(PerDatum):
    """An evidence lower bound of each datum, with its Monte Carlo standard error; shape (B,), in nats.

    Example:

        >>> one, other = Bound(torch.zeros(2), torch.full((2,), 3.0)), Bound(torch.ones(2), torch.full((2,), 4.0))
        >>> (other - one).value, (other - one).standard_error
        (tensor([1., 1.]), tensor([5., 5.]))
    """

    def __sub__(self, other: "Bound") -> "Bound":
        return Bound(self.value - other.value, (self.standard_error**2 + other.standard_error**2).sqrt())

    @classmethod
    def joined(cls, parts: Sequence["Bound"]) -> "Bound":
        """The bounds of all parts of the data."""
        value, error = (torch.cat([getattr(part, name) for part in parts]) for name in ("value", "standard_error"))
        return cls(value, error)

    def __repr__(self) -> str:
        return f"{self.mean:.3f} +- {self.simulation_error:.3f}"


@dataclass(frozen=True, eq=False)
class Gaps:
    """The gaps of one guide on B data; each a :class:`Bound`, in nats. Made by :func:`gaps`.

    Attributes:
        log_p: log p(x), with the weights of the guide. Where it is a lower bound, so is the approximation gap.
        local: the bound at the best member of the guide's family, as far as its features reach: the maps that a flow
            learned for all data stay as they are.
        local_gaussian: the bound at the best diagonal Gaussian.

    Example:

        >>> from ppvae.evaluation.likelihood.marginal import marginal_of, weights_of
        >>> log_p = marginal_of(weights_of(torch.full((100, 1), -1.0, dtype=torch.float64)))
        >>> bound = Bound(torch.tensor([-1.5]), torch.zeros(1))
        >>> Gaps(log_p, local=bound, local_gaussian=bound).approximation.mean
        0.5
    """

    log_p: LogMarginal
    local: Bound
    local_gaussian: Bound

    @property
    def amortized(self) -> Bound:
        """L[q], the guide's own bound."""
        return elbo_of(self.log_p.guide)

    @property
    def approximation(self) -> Bound:
        """log p(x) - L[q*]."""
        return Bound(self.log_p.value, self.log_p.standard_error) - self.local

    @property
    def amortization(self) -> Bound:
        """L[q*] - L[q]."""
        return self.local - self.amortized

    def __repr__(self) -> str:
        return (
            f"Gaps({self.log_p}, local {self.local}, local Gaussian {self.local_gaussian}, amortized "
            f"{self.amortized}; approximation {self.approximation}, amortization {self.amortization} nats, "
            "+- simulation error)"
        )


@dataclass(frozen=True)
class Ascent:
    """Settings of the search for the best q of each datum, by Adam on its features.

    Args:
        learning_rate: of Adam.
        patience: windows of 100 steps without a gain of the mean bound after which the search ends.
        max_windows: the most windows.
        batch_size: data that are optimised at once.

    Example:

        >>> Ascent(learning_rate=0.01).patience
        10
    """

    learning_rate: float = 1e-3
    patience: int = 10
    max_windows: int = 100
    batch_size: int = 100

    def __post_init__(self) -> None:
        for name in ("patience", "max_windows", "batch_size"):
            require_count(name, getattr(self, name))
        if not self.learning_rate > 0:
            raise ValueError(f"expected learning_rate above 0, got {self.learning_rate}")


DEFAULT = Ascent()


def gaps(
    model: Any,
    guide: AmortizedGuide,
    data: Batch | HasBatch | Array,
    y: Array | None = None,
    *,
    proposal: Choice = "auto",
    num_particles: int = 1000,
    ascent: Ascent = DEFAULT,
    chunk: int = 1000,
    seed: int = 0,
    progress: bool = False,
    **given: Array,
) -> Gaps:
    """Split log p(x) - ELBO of each datum into its approximation and its amortization gap.

    log p(x) is that of :func:`ppvae.log_marginal`: from a proposal fitted to each datum that the guide's weights leave
    in doubt.

    Args:
        model: generative model with one latent "z".
        guide: an :class:`AmortizedGuide`; its features are optimised datum by datum, starting from ``encode``.
        data: a ``Dataset``, a tensor or a numpy array of shape (B, *event_shape).
        y: labels, shape (B,); or None.
        proposal: of log p(x), see :func:`ppvae.log_marginal`.
        num_particles: draws for each bound and for log p(x), K.
        ascent: learning rate, patience, windows, data at once.
        chunk: pairs of a particle and a datum that are evaluated at once, see :func:`ppvae.log_marginal`.
        seed: of the run.
        progress: show a progress bar.
        given: conditions of B rows each.

    Raises:
        ContractError: the pair or the data break the contract, the guide is no :class:`AmortizedGuide` or no density
            over the prior's whole space, or the weights of a datum are not finite.

    Example:

        >>> import ppvae
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> _ = torch.manual_seed(0)
        >>> model = LinearGaussian(torch.eye(2), torch.zeros(2))
        >>> guide = MeanFieldGaussian(ppvae.nn.MLP(2, [], 4))
        >>> found = ppvae.gaps(model, guide, torch.randn(4, 2), num_particles=100, ascent=Ascent(0.05, max_windows=1))
        >>> found.amortization.value > 0
        tensor([True, True, True, True])
    """
    counts = {"num_particles": num_particles, "chunk": chunk}
    options: dict[str, Any] = {name: require_count(name, count) for name, count in counts.items()}
    options["progress"] = progress
    with evaluation(model, guide, data, y, given, seed=seed) as (_, batch):
        require_amortized(guide)
        log_p = log_marginal(model, guide, batch, proposal=proposal, seed=seed, **options)
        return Gaps(log_p, *local_bounds(model, guide, batch, ascent=ascent, seed=seed + 1, **options))


def local_bounds(
    model: Any,
    guide: AmortizedGuide,
    batch: Batch,
    num_particles: int,
    ascent: Ascent,
    chunk: int = 1000,
    seed: int = 0,
    progress: bool = False,
) -> tuple[Bound, Bound]:
    """The bounds at the best member of the guide's family and at the best diagonal Gaussian, for each datum.

    Args: see :func:`gaps`.

    Example:

        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> model, guide = LinearGaussian(torch.eye(2), torch.zeros(2)), MeanFieldGaussian(torch.nn.Linear(2, 4))
        >>> own, gaussian = local_bounds(model, guide, Batch(torch.zeros(3, 2)), 10, Ascent(0.05, max_windows=1))
        >>> own.value.shape, gaussian.value.shape
        (torch.Size([3]), torch.Size([3]))
    """
    with evaluation(model, guide, batch, seed=seed) as (pair, batch):
        rows = tracked(blocks(len(batch), ascent.batch_size), "gaps", progress)
        parts = [_local_bounds_of(pair, batch.rows(block), num_particles, ascent, chunk) for block in rows]
    own, gaussian = zip(*parts, strict=True)
    return Bound.joined(own), Bound.joined(gaussian)


def _local_bounds_of(pair: Pair, batch: Batch, num_particles: int, ascent: Ascent, chunk: int) -> tuple[Bound, Bound]:
    family, start = pair.guide.distribution, encode(pair.guide, batch)
    draws = family(start).sample((MOMENT_DRAWS,))
    moments = torch.cat([draws.mean(0), draws.std(0).log()], -1)
    own, gaussian = (
        _bound(
            pair.model, family, local_optimum(pair.model, family, batch, features, ascent), batch, num_particles, chunk
        )
        for family, features in ((family, start), (diagonal_normal, moments))
    )
    return own, gaussian


def _bound(model: Any, family: Family, features: Tensor, batch: Batch, num_particles: int, chunk: int) -> Bound:
    return elbo_of(estimate(model, lambda rows: at_features(family, features[rows]), batch, num_particles, chunk))


def local_optimum(model: Any, family: Family, batch: Batch, features: Tensor, ascent: Ascent) -> Tensor:
    """The features of the ascent, averaged from its best window on until patience ends.

    Near the optimum the iterates vary with the noise of the gradient; averaging removes most of it.

    Example:

        >>> from ppvae.models import LinearGaussian
        >>> model, batch = LinearGaussian(torch.eye(2), torch.zeros(2)), Batch(torch.zeros(3, 2))
        >>> local_optimum(model, diagonal_normal, batch, torch.zeros(3, 4), Ascent(0.05, max_windows=1)).shape
        torch.Size([3, 4])
    """
    steps = climb(model, family, batch, features, ascent.learning_rate)
    best, plateau = -math.inf, list[Tensor]()
    for _ in range(ascent.max_windows):
        window = [(f.clone(), bound.mean()) for f, bound in islice(steps, WINDOW)]
        mean = torch.stack([bound for _, bound in window]).mean().item()
        if mean > best:
            best, plateau = mean, []
        plateau.append(torch.stack([f for f, _ in window]).mean(0))
        if len(plateau) > ascent.patience:
            break
    return torch.stack(plateau).mean(0)


def elbo_of(weights: Weights) -> Bound:
    """The evidence lower bound of each datum, mean of log w, with its standard error.

    Example:

        >>> import ppvae
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> model, guide = LinearGaussian(torch.eye(2), torch.zeros(2)), MeanFieldGaussian(ppvae.nn.MLP(2, [], 4))
        >>> elbo_of(ppvae.log_marginal(model, guide, torch.zeros(3, 2), num_particles=10).guide).value.shape
        torch.Size([3])
    """
    return Bound(weights.bound(1), weights.bound_standard_error(1))
