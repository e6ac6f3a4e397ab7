"""Several guides of one frozen model, or several pairs, on the same data: one table, with paired differences.

A difference of two means over the same data is as certain as the differences datum by datum: its standard error is
theirs, sd / sqrt(B), which leaves out how hard each datum is.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console, Group
from rich.table import Table
from torch import Tensor

from ppvae.engine.checks import to_device_of
from ppvae.engine.contract import check_pair
from ppvae.errors import ContractError
from ppvae.evaluation.arviz import inference_data
from ppvae.evaluation.likelihood.annealed import AnnealedEstimate
from ppvae.evaluation.likelihood.annealing import ais
from ppvae.evaluation.likelihood.importance import KHAT_LIMIT, LogMarginal, log_marginal
from ppvae.evaluation.likelihood.inference_gaps import Bound, Gaps, gaps, require_amortized, tightest
from ppvae.evaluation.likelihood.per_datum import sampling_error


@dataclass(frozen=True, eq=False)
class Row:
    """One pair's results.

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
    """Results by name, all on the same data; made by :func:`compare` and :func:`compare_pairs`."""

    rows: dict[str, Row]
    pairs: dict[str, tuple]
    x: Tensor

    def difference(self, a: str, b: str, k: int | None = None) -> tuple[float, float]:
        """Mean of a's less b's k-particle bound (by default of all particles), and its paired standard error; nats."""
        delta = self._bound(a, k) - self._bound(b, k)
        return delta.mean().item(), sampling_error(delta)

    def best(self, k: int | None = None) -> str:
        """The name with the highest mean k-particle bound."""
        return max(self.rows, key=lambda name: self._bound(name, k).mean().item())

    def records(self) -> dict[str, dict[str, float | None]]:
        """The table as numbers, JSON-ready: means over the data, in nats."""
        top = {k: self.best(k) for k in (1, None)}
        return {name: self._record(name, row, top) for name, row in self.rows.items()}

    def save(self, path: str | Path) -> None:
        """Write :meth:`records` as JSON."""
        Path(path).write_text(json.dumps(self.records(), indent=2, allow_nan=False) + "\n")

    def table(self) -> Group:
        """As two rich tables with a row for each pair: the bounds, and what they are to be judged by."""
        particles = next(iter(self.rows.values())).marginal.num_particles
        titles = (f"{len(self.x)} data, {particles} particles; nats", None)
        return Group(*(self._part(heads, title) for heads, title in zip(_HEADS, titles, strict=True)))

    def _part(self, heads: dict[str, str], title: str | None) -> Table:
        records = self.records()
        shown = {h: key for h, key in heads.items() if any(r[key] is not None for r in records.values())}
        table = Table("", *shown, title=title, box=SIMPLE)
        for name, record in records.items():
            table.add_row(name, *(_cell(record, quantity) for quantity in shown.values()))
        return table

    def print(self) -> None:
        """Print :meth:`table`."""
        Console().print(self.table())

    def plot(self):
        """Each pair's bounds below the best, with paired standard errors, as a matplotlib figure."""
        from ppvae.plots import dots_with_errors

        records = self.records().values()
        series = {
            label: ([r[f"{key}_from_best"] for r in records], [r[f"{key}_from_best_standard_error"] for r in records])
            for label, key in (("evidence bound", "elbo"), ("log p(x) by importance sampling", "log_p"))
        }
        return dots_with_errors(list(self.rows), series, "nats from the best")

    def to_arviz(self, name: str, draws: int = 500, seed: int = 0):
        """One pair's posterior, log likelihood, prior and observed data for ArviZ; see :func:`inference_data`."""
        return inference_data(*self.pairs[name], self.x, draws=draws, seed=seed)

    def _bound(self, name: str, k: int | None) -> Tensor:
        marginal = self.rows[name].marginal
        return marginal.bound(marginal.num_particles if k is None else k)

    def _record(self, name: str, row: Row, top: dict) -> dict[str, float | None]:
        elbo, elbo_error = self.difference(name, top[1], 1)
        log_p, log_p_error = self.difference(name, top[None])
        khat = row.marginal.khat_above_limit
        return {
            "elbo": row.marginal.bound(1).mean().item(),
            "elbo_from_best": elbo,
            "elbo_from_best_standard_error": elbo_error,
            "log_p": row.marginal.mean,
            "log_p_from_best": log_p,
            "log_p_from_best_standard_error": log_p_error,
            "particles": row.marginal.num_particles,
            f"khat_above_{KHAT_LIMIT}": None if khat != khat else khat,
            "median_ess": row.marginal.ess.median().item(),
            "ais": None if row.annealed is None else row.annealed.mean,
            "approximation_gap": None if row.gaps is None else row.gaps.approximation.mean,
            "amortization_gap": None if row.gaps is None else row.gaps.amortization.mean,
            "seconds": row.seconds,
        }


def compare(model, guides: Mapping[str, object], x: Tensor, **options) -> Comparison:
    """Compare guides of one model, which is not changed, on the same data.

    Args:
        model: the generative model that all guides share.
        guides: guides by name, each over the model's latents.
        x: data, shape (B, *event_shape).
        options: of :func:`compare_pairs`.
    """
    return compare_pairs({name: (model, guide) for name, guide in guides.items()}, x, **options)


def compare_pairs(
    pairs: Mapping[str, tuple],
    x: Tensor,
    *,
    num_particles: int = 1000,
    ais_settings: dict | None = None,
    gap_settings: dict | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Comparison:
    """Compare pairs, each with a model of its own, on the same data.

    Args:
        pairs: (model, guide) by name.
        x: data, shape (B, *event_shape).
        num_particles: of the importance-weighted estimates.
        ais_settings: of :func:`ais`, such as ``{"temperatures": 500}``; None leaves it out.
        gap_settings: of :func:`gaps`, ``{}`` for its defaults; None leaves them out.
        seed: of every estimate.
        progress: show progress bars.

    Raises ContractError, with the pair's name, where a guide and its model disagree about the latents.
    """
    if not pairs:
        raise ValueError("expected at least one pair, got none")
    if len(x) < 2:
        raise ValueError(f"expected at least 2 data, for standard errors over them, got {len(x)}")
    for name, (model, guide) in pairs.items():
        try:
            check_pair(model, guide, to_device_of(model, x[:4]))
            if gap_settings is not None:
                require_amortized(guide)
        except ContractError as error:
            raise ContractError(f"pair {name!r}: {error}") from error
    common = {"seed": seed, "progress": progress}
    rows = {}
    annealed = {}  # by model: guides of one model share it
    for name, (model, guide) in pairs.items():
        started = time.perf_counter()
        marginal = log_marginal(model, guide, x, num_particles=num_particles, **common)
        seconds = time.perf_counter() - started
        if ais_settings is not None and id(model) not in annealed:
            annealed[id(model)] = ais(model, x, **ais_settings, **common)
        found = None if gap_settings is None else gaps(model, guide, x, **gap_settings, **common)
        rows[name] = Row(marginal, annealed.get(id(model)), found, seconds)
    return Comparison(_on_common_ground(rows, pairs), dict(pairs), x)


def _on_common_ground(rows: dict[str, Row], pairs: Mapping[str, tuple]) -> dict[str, Row]:
    """Measure the gaps of all guides of one model from one log p(x): the tightest of all its estimates."""
    common = {}
    for name, row in rows.items():
        if row.gaps is not None:
            siblings = [other for key, other in rows.items() if pairs[key][0] is pairs[name][0]]
            estimates = [e for other in siblings for e in (other.marginal, other.gaps.log_p)]
            annealed = [] if row.annealed is None else [row.annealed]
            best = tightest([*estimates, *annealed])
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
        f"k-hat > {KHAT_LIMIT}": f"khat_above_{KHAT_LIMIT}",
        "ESS": "median_ess",
        "AIS": "ais",
        "approx. gap": "approximation_gap",
        "amort. gap": "amortization_gap",
        "s": "seconds",
    },
)


def _cell(record: dict, quantity: str) -> str:
    value = record[quantity]
    if value is None:
        return ""
    if quantity.startswith("khat"):
        return f"{value:.0%}"
    error = record.get(f"{quantity}_standard_error")
    digits = 1 if quantity in ("seconds", "median_ess") else 2
    return f"{value:.{digits}f}" + ("" if error is None else f" ± {error:.2f}")
