"""Several guides of one frozen model, or several pairs, on the same data: one table, with paired differences.

A difference of two means over the same data has the standard error of the differences datum by datum, sd / sqrt(B),
which leaves out how hard each datum is.
"""

import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ppvae.engine.batch import Array, Batch, HasBatch
from ppvae.engine.evaluation import evaluation
from ppvae.errors import ContractError
from ppvae.evaluation.arviz import inference_data
from ppvae.evaluation.likelihood.annealed import AnnealedEstimate
from ppvae.evaluation.likelihood.annealing import Annealing, ais
from ppvae.evaluation.likelihood.importance import LogMarginal, log_marginal
from ppvae.evaluation.likelihood.inference_gaps import Ascent, Bound, Gaps, gaps, tightest
from ppvae.evaluation.likelihood.per_datum import PerDatum, sampling_error
from ppvae.evaluation.requirements import require_amortized, require_weights

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Group
    from rich.table import Table

Pairs = Mapping[str, tuple[nn.Module, nn.Module]]
Record = dict[str, float | None]


@dataclass(frozen=True, eq=False)
class Row:
    """The results of one pair.

    Attributes:
        marginal: importance-weighted estimates: ``bound(1)`` is the evidence bound, ``value`` that of all particles.
        annealed: annealed importance sampling, where it was asked for.
        gaps: approximation and amortization gap, where they were asked for; of all guides of one model from one
            log p(x), the tightest of all its estimates.
        seconds: that ``marginal`` took.
    """

    marginal: LogMarginal
    annealed: AnnealedEstimate | None
    gaps: Gaps | None
    seconds: float


@dataclass(frozen=True, eq=False)
class Comparison:
    """Results by name, all on the same data; made by :func:`compare` and :func:`compare_pairs`.

    Attributes:
        rows: results by name.
        pairs: (model, guide) by name.
        batch: the data, with labels and conditions.
    """

    rows: dict[str, Row]
    pairs: dict[str, tuple[nn.Module, nn.Module]]
    batch: Batch

    def difference(self, a: str, b: str, k: int | None = None) -> tuple[float, float]:
        """Mean of a's less b's k-particle bound (by default of all particles), and its paired standard error; nats."""
        delta = self._bound(a, k) - self._bound(b, k)
        return delta.mean().item(), sampling_error(delta)

    def best(self, k: int | None = None) -> str:
        """The name with the highest mean k-particle bound."""
        return max(self.rows, key=lambda name: self._bound(name, k).mean().item())

    def records(self) -> dict[str, Record]:
        """The table as numbers, JSON-ready: means over the data, in nats.

        ``log_p_simulation_error`` is the Monte Carlo error for these data, ``log_p_sampling_error`` the error over the
        data, ``khat_bad`` the share of the data for which log p(x) is only a lower bound.
        """
        top = {k: self.best(k) for k in (1, None)}
        return {name: self._record(name, row, top) for name, row in self.rows.items()}

    def save(self, path: str | Path) -> None:
        """Write :meth:`records` as JSON."""
        Path(path).write_text(json.dumps(self.records(), indent=2, allow_nan=False) + "\n")

    def table(self) -> "Group":
        """As two rich tables with a row for each pair: the bounds, and how far they can be trusted."""
        from rich.console import Group

        particles = next(iter(self.rows.values())).marginal.num_particles
        titles = (
            f"{len(self.batch)} data, {particles} particles; nats",
            "log p(x) is a lower bound where k-hat is bad; its errors are of simulation for these data, and over data",
        )
        return Group(*(self._part(heads, title) for heads, title in zip(_HEADS, titles, strict=True)))

    def _part(self, heads: dict[str, str], title: str) -> "Table":
        from rich.box import SIMPLE
        from rich.table import Table

        records = self.records()
        shown = {h: key for h, key in heads.items() if any(r[key] is not None for r in records.values())}
        table = Table("", *shown, title=title, box=SIMPLE)
        for name, record in records.items():
            table.add_row(name, *(_cell(record, quantity) for quantity in shown.values()))
        return table

    def print(self) -> None:
        """Print :meth:`table`."""
        from rich.console import Console

        Console().print(self.table())

    def plot(self) -> "Figure":
        """Each pair's bounds below the best, with paired standard errors, as a matplotlib figure."""
        from ppvae.plots import dots_with_errors

        series = {}
        for label, k in (("evidence bound", 1), ("log p(x) by importance sampling", None)):
            differences = [self.difference(name, self.best(k), k) for name in self.rows]
            series[label] = [mean for mean, _ in differences], [error for _, error in differences]
        return dots_with_errors(list(self.rows), series, "nats from the best")

    def to_arviz(self, name: str, draws: int = 500, seed: int = 0) -> Any:
        """One pair's posterior, log likelihood, prior and observed data for ArviZ; see :func:`inference_data`."""
        return inference_data(*self.pairs[name], self.batch, draws=draws, seed=seed)

    def _bound(self, name: str, k: int | None) -> Tensor:
        marginal = self.rows[name].marginal
        return marginal.bound(marginal.num_particles if k is None else k)

    def _record(self, name: str, row: Row, top: dict[int | None, str]) -> Record:
        elbo, elbo_error = self.difference(name, top[1], 1)
        log_p, log_p_error = self.difference(name, top[None])
        numbers = {
            "elbo": row.marginal.bound(1).mean().item(),
            "elbo_from_best": elbo,
            "elbo_from_best_standard_error": elbo_error,
            "log_p": row.marginal.mean,
            "log_p_simulation_error": row.marginal.simulation_error,
            "log_p_sampling_error": row.marginal.sampling_error,
            "log_p_from_best": log_p,
            "log_p_from_best_standard_error": log_p_error,
            "particles": row.marginal.num_particles,
            "khat_bad": row.marginal.khat_bad,
            "median_ess": row.marginal.ess.median().item(),
            "ais": math.nan if row.annealed is None else row.annealed.mean,
            "approximation_gap": math.nan if row.gaps is None else row.gaps.approximation.mean,
            "amortization_gap": math.nan if row.gaps is None else row.gaps.amortization.mean,
            "seconds": row.seconds,
        }
        return {key: None if math.isnan(number) else number for key, number in numbers.items()}

    def __repr__(self) -> str:
        return f"Comparison({', '.join(self.rows)}; {len(self.batch)} data, best {self.best()!r})"


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
    """
    for name, (_, guide) in pairs.items() if ascent is not None else ():
        with _named(name):
            require_amortized(guide)
    batch = _checked(pairs, data, y, given, seed)
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
            options: dict[str, Any] = {"num_particles": num_particles, "ascent": ascent, "progress": progress}
            found = gaps(model, require_amortized(guide), batch, seed=seed, **options)
        rows[name] = Row(marginal, annealed.get(id(model)), found, seconds)
    return Comparison(_on_common_ground(rows, pairs), dict(pairs), batch)


def _checked(
    pairs: Pairs, data: Batch | HasBatch | Array, y: Array | None, given: Mapping[str, Array], seed: int
) -> Batch:
    """The data, binarized once for all pairs. Raises ContractError, with its name, for a pair that does not fit."""
    if not pairs:
        raise ValueError("expected at least one pair, got none")
    for name, (model, guide) in pairs.items():
        with _named(name), evaluation(model, guide, data, y, given, seed=seed) as (pair, batch):
            require_weights(pair, batch)
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


_HEADS = (
    {
        "ELBO": "elbo",
        "less the best": "elbo_from_best",
        "log p(x)": "log_p",
        "less the best ": "log_p_from_best",
    },
    {
        "k-hat bad": "khat_bad",
        "ESS": "median_ess",
        "simulation error": "log_p_simulation_error",
        "sampling error": "log_p_sampling_error",
        "AIS": "ais",
        "approx. gap": "approximation_gap",
        "amort. gap": "amortization_gap",
        "s": "seconds",
    },
)


def _cell(record: Record, quantity: str) -> str:
    value = record[quantity]
    if value is None:
        return ""
    if quantity == "khat_bad":
        return f"{value:.0%}"
    error = record.get(f"{quantity}_standard_error")
    digits = 1 if quantity in ("seconds", "median_ess") else 2
    return f"{value:.{digits}f}" + ("" if error is None else f" ± {error:.2f}")
