"""Comparing several guides of one frozen model, or several pairs, on the same data."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from ppvae.engine.batch import Array, Batch, HasBatch
from ppvae.engine.evaluation import evaluation
from ppvae.engine.pair import Pair
from ppvae.errors import ContractError
from ppvae.evaluation.comparison import Comparison, Row
from ppvae.evaluation.likelihood.annealing import Annealing, ais
from ppvae.evaluation.likelihood.fitted import fittable
from ppvae.evaluation.likelihood.importance import log_marginal
from ppvae.evaluation.likelihood.inference_gaps import Ascent, Gaps, local_bounds
from ppvae.evaluation.likelihood.marginal import LogMarginal
from ppvae.evaluation.likelihood.path import Path
from ppvae.evaluation.likelihood.stages import Choice, require_choice
from ppvae.evaluation.requirements import require_amortized, require_weights

Pairs = Mapping[str, tuple[nn.Module, nn.Module]]


def compare(
    model: nn.Module,
    guides: Mapping[str, nn.Module],
    data: Batch | HasBatch | Array,
    y: Array | None = None,
    **options: Any,
) -> Comparison:
    """Compare guides of one model, which is not changed, on the same data.

    Args:
        model: the generative model that all guides share.
        guides: guides by name, each over the model's latents.
        data: a ``Dataset``, a tensor or a numpy array of shape (B, *event_shape).
        y: labels, shape (B,), -1 where unknown; or None.
        options: options and conditions of :func:`compare_pairs`.

    Example:

        >>> import ppvae, torch
        >>> from ppvae.guides import FullRankGaussian, MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> model = LinearGaussian(torch.eye(2), torch.zeros(2))
        >>> guides = {"diagonal": MeanFieldGaussian(ppvae.nn.MLP(2, [], 4))}
        >>> guides["full"] = FullRankGaussian(ppvae.nn.MLP(2, [], 5), 2)
        >>> found = ppvae.compare(model, guides, torch.randn(4, 2), num_particles=50)
        >>> list(found.records())
        ['diagonal', 'full']
    """
    return compare_pairs({name: (model, guide) for name, guide in guides.items()}, data, y, **options)


def compare_pairs(
    pairs: Pairs,
    data: Batch | HasBatch | Array,
    y: Array | None = None,
    *,
    proposal: Choice = "auto",
    num_particles: int = 1000,
    annealing: Annealing | None = None,
    ascent: Ascent | None = None,
    chunk: int = 1000,
    seed: int = 0,
    progress: bool = False,
    **given: Array,
) -> Comparison:
    """Compare pairs, each with a model of its own, on the same data.

    The weights of each guide give its own bounds, k-hat and effective sample size. log p(x) belongs to the model: it is
    estimated once for all guides of one model, as :func:`ppvae.log_marginal` does, from the guide with the highest mean
    bound of all particles. Gaps are distances from it. Where a guide's bound is higher than log p(x) by more than the
    simulation errors, a fitted proposal misses a mode that the guide covers, and log p(x) is marked as a lower bound.

    Args:
        pairs: (model, guide) by name. Guides of the same model object share its log p(x).
        data: a ``Dataset``, a tensor or a numpy array of shape (B, *event_shape), B at least 2.
        y: labels, shape (B,), -1 where unknown; or None.
        proposal: of log p(x): "auto" fits one to every datum that the guide's weights leave in doubt; an object such
            as :class:`ppvae.evaluation.proposals.FullRank` is fitted to every datum; with None log p(x) is the bound of
            the best guide.
        num_particles: of the importance-weighted estimates, and of the gaps.
        annealing: settings of :func:`ais`, such as ``Annealing(temperatures=500)``; None leaves it out.
        ascent: settings of :func:`gaps`, ``Ascent()`` for its defaults; None leaves them out.
        chunk: pairs of a particle and a datum that are evaluated at once, see :func:`ppvae.log_marginal`.
        seed: of every estimate.
        progress: show progress bars.
        given: conditions of B rows each.

    Raises:
        ContractError: with the pair's name, where a guide and its model disagree about the latents, where q is no
            density over the prior's whole space, or where a requested proposal cannot be fitted, before anything is
            estimated; where the weights of a datum have no finite sum.
        TypeError: ``proposal`` is not a proposal.
        ValueError: there is no pair, or fewer than two data.

    Example:

        >>> import ppvae, torch
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> def pair():
        ...     return LinearGaussian(torch.eye(2), torch.zeros(2)), MeanFieldGaussian(ppvae.nn.MLP(2, [], 4))
        >>> found = ppvae.compare_pairs({"one": pair(), "two": pair()}, torch.randn(4, 2), num_particles=50)
        >>> list(found.records())
        ['one', 'two']
    """
    require_choice(proposal)
    settings = _Settings(proposal, num_particles, annealing, ascent, chunk, seed, progress)
    batch = _checked(pairs, (data, y, given), settings)
    rows: dict[str, Row] = {}
    for model in {id(model): model for model, _ in pairs.values()}.values():
        guides = {name: guide for name, (other, guide) in pairs.items() if other is model}
        rows |= _rows(model, guides, batch, settings)
    return Comparison({name: rows[name] for name in pairs}, dict(pairs), batch)


@dataclass(frozen=True)
class _Settings:
    """The options of :func:`compare_pairs`."""

    proposal: Choice
    num_particles: int
    annealing: Annealing | None
    ascent: Ascent | None
    chunk: int
    seed: int
    progress: bool


def _checked(
    pairs: Pairs, columns: tuple[Batch | HasBatch | Array, Array | None, Mapping[str, Array]], settings: _Settings
) -> Batch:
    """The data, binarized once for all pairs. Raises ContractError, with its name, for a pair that does not fit."""
    if not pairs:
        raise ValueError("expected at least one pair, got none")
    data, y, given = columns
    for name, (model, guide) in pairs.items():
        with _named(name), evaluation(model, guide, data, y, given, seed=settings.seed) as (pair, batch):
            _require_estimates(pair, batch, settings)
        data, y, given = batch, None, {}
    if len(batch) < 2:
        raise ValueError(f"expected at least 2 data, for standard errors over them, got {len(batch)}")
    return batch


def _require_estimates(pair: Pair, batch: Batch, settings: _Settings) -> None:
    """Raise ContractError for a pair of which the requested estimates do not exist."""
    require_weights(pair, batch)
    if settings.proposal not in (None, "auto"):
        fittable(pair, batch)
    if settings.ascent is not None:
        require_amortized(pair.guide)
    if settings.annealing is not None:
        Path(Pair(pair.model, None), batch, settings.annealing.chains)


@contextmanager
def _named(name: str) -> Iterator[None]:
    """The name of the pair in its errors."""
    try:
        yield
    except ContractError as error:
        raise ContractError(f"pair {name!r}: {error}") from error


def _rows(model: nn.Module, guides: Mapping[str, nn.Module], batch: Batch, settings: _Settings) -> dict[str, Row]:
    """The results of all guides of one model, with one log p(x)."""
    pairs, alone = {name: (model, guide) for name, guide in guides.items()}, len(guides) == 1
    own = {name: _estimated(name, pair, batch, settings, fit=alone) for name, pair in pairs.items()}
    start = max(own, key=lambda name: own[name][0].mean)
    log_p, seconds = own[start][0], 0.0
    if not alone:  # with fresh draws: the choice of the highest bound must not raise the estimate
        log_p, seconds = _estimated(start, pairs[start], batch, replace(settings, seed=settings.seed + 1), fit=True)
        log_p = replace(log_p, stages=(f"guide {start}", *log_p.stages[1:]))
    annealed = None
    if settings.annealing is not None:
        annealed = ais(model, batch, annealing=settings.annealing, seed=settings.seed, progress=settings.progress)
    rows = {}
    for name, (found, own_seconds) in own.items():
        marginal = replace(log_p, guide=found.guide)
        rows[name] = Row(marginal, annealed, _gaps(pairs[name], batch, marginal, settings), own_seconds + seconds)
    return rows


def _estimated(
    name: str, pair: tuple[nn.Module, nn.Module], batch: Batch, settings: _Settings, fit: bool
) -> tuple[LogMarginal, float]:
    """The estimates of a pair, by the guide's weights alone or by the proposal, and the seconds that they took."""
    started = time.perf_counter()
    with _named(name):
        found = log_marginal(
            *pair,
            batch,
            proposal=settings.proposal if fit else None,
            num_particles=settings.num_particles,
            chunk=settings.chunk,
            seed=settings.seed,
            progress=settings.progress,
        )
    return found, time.perf_counter() - started


def _gaps(pair: tuple[nn.Module, nn.Module], batch: Batch, log_p: LogMarginal, settings: _Settings) -> Gaps | None:
    """The distances of a guide's bounds from log p(x), if requested."""
    if settings.ascent is None:
        return None
    bounds = local_bounds(
        pair[0],
        require_amortized(pair[1]),
        batch,
        settings.num_particles,
        settings.ascent,
        settings.chunk,
        settings.seed + 2,
        settings.progress,
    )
    return Gaps(log_p, *bounds)
