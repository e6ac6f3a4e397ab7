"""Comparing several guides of one frozen model, or several pairs, on the same data."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import nn

from ppvae.engine.batch import Array, Batch, HasBatch
from ppvae.engine.evaluation import evaluation
from ppvae.engine.pair import Pair
from ppvae.errors import ContractError
from ppvae.evaluation.comparison import Comparison, Row
from ppvae.evaluation.likelihood.annealed import AnnealedEstimate
from ppvae.evaluation.likelihood.annealing import Annealing, ais
from ppvae.evaluation.likelihood.importance import log_marginal
from ppvae.evaluation.likelihood.inference_gaps import Ascent, Bound, gaps, tightest
from ppvae.evaluation.likelihood.path import Path
from ppvae.evaluation.likelihood.per_datum import PerDatum
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
    num_particles: int = 1000,
    annealing: Annealing | None = None,
    ascent: Ascent | None = None,
    seed: int = 0,
    progress: bool = False,
    **given: Array,
) -> Comparison:
    """Compare pairs, each with a model of its own, on the same data.

    Args:
        pairs: (model, guide) by name.
        data: a ``Dataset``, a tensor or a numpy array of shape (B, *event_shape), B at least 2.
        y: labels, shape (B,), -1 where unknown; or None.
        num_particles: of the importance-weighted estimates, and of the gaps.
        annealing: settings of :func:`ais`, such as ``Annealing(temperatures=500)``; None leaves it out.
        ascent: settings of :func:`gaps`, ``Ascent()`` for its defaults; None leaves them out.
        seed: of every estimate.
        progress: show progress bars.
        given: conditions of B rows each.

    Raises:
        ContractError: with the pair's name, where a guide and its model disagree about the latents, or where q is no
            density over the prior's whole space; before anything is estimated.
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
    batch = _checked(pairs, (data, y, given), seed, annealing, ascent)
    rows: dict[str, Row] = {}
    annealed: dict[int, AnnealedEstimate] = {}  # by model: guides of one model share it
    for name, (model, guide) in pairs.items():
        started = time.perf_counter()
        marginal = log_marginal(model, guide, batch, num_particles=num_particles, seed=seed, progress=progress)
        seconds = time.perf_counter() - started
        if annealing is not None and id(model) not in annealed:
            annealed[id(model)] = ais(model, batch, annealing=annealing, seed=seed, progress=progress)
        found = None
        if ascent is not None:
            amortized = require_amortized(guide)
            found = gaps(
                model, amortized, batch, num_particles=num_particles, ascent=ascent, seed=seed, progress=progress
            )
        rows[name] = Row(marginal, annealed.get(id(model)), found, seconds)
    return Comparison(_on_common_ground(rows, pairs), dict(pairs), batch)


def _checked(
    pairs: Pairs,
    columns: tuple[Batch | HasBatch | Array, Array | None, Mapping[str, Array]],
    seed: int,
    annealing: Annealing | None,
    ascent: Ascent | None,
) -> Batch:
    """The data, binarized once for all pairs. Raises ContractError, with its name, for a pair that does not fit."""
    if not pairs:
        raise ValueError("expected at least one pair, got none")
    data, y, given = columns
    for name, (model, guide) in pairs.items():
        with _named(name), evaluation(model, guide, data, y, given, seed=seed) as (pair, batch):
            require_weights(pair, batch)
            if ascent is not None:
                require_amortized(guide)
            if annealing is not None:
                Path(Pair(model, None), batch, annealing.chains)
        data, y, given = batch, None, {}
    if len(batch) < 2:
        raise ValueError(f"expected at least 2 data, for standard errors over them, got {len(batch)}")
    return batch


@contextmanager
def _named(name: str) -> Iterator[None]:
    """The name of the pair in its errors."""
    try:
        yield
    except ContractError as error:
        raise ContractError(f"pair {name!r}: {error}") from error


def _on_common_ground(rows: dict[str, Row], pairs: Pairs) -> dict[str, Row]:
    """Measure the gaps of all guides of one model from one log p(x): the tightest of all its estimates."""
    common = {}
    for name, row in rows.items():
        if row.gaps is None:
            continue
        siblings = [other for key, other in rows.items() if pairs[key][0] is pairs[name][0]]
        estimates: list[PerDatum] = [other.marginal for other in siblings]
        estimates += [other.gaps.log_p for other in siblings if other.gaps is not None]
        estimates += [other.annealed for other in siblings if other.annealed is not None]
        best = tightest(estimates)
        common[name] = replace(row, gaps=replace(row.gaps, log_p=Bound(best.value, best.standard_error)))
    return {**rows, **common}
