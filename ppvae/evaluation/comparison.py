"""Results of several pairs on the same data: one table, with paired differences.

The bounds, k-hat and effective sample size of a row judge its guide. log p(x) belongs to the model: all guides of one
model have the same.

A difference of two means over the same data has the standard error of the differences datum by datum, sd / sqrt(B),
which leaves out how hard each datum is.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ppvae.engine.batch import Batch
from ppvae.evaluation.arviz import inference_data
from ppvae.evaluation.likelihood.annealed import AnnealedEstimate
from ppvae.evaluation.likelihood.inference_gaps import Gaps
from ppvae.evaluation.likelihood.marginal import LogMarginal
from ppvae.evaluation.likelihood.per_datum import PerDatum, sampling_error

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Group
    from rich.table import Table

Record = dict[str, float | bool | None]


@dataclass(frozen=True, eq=False)
class Row:
    """The results of one pair.

    Attributes:
        marginal: log p(x), the same for all guides of one model; its ``guide`` and its ``bound(k)`` are of this guide.
        annealed: annealed importance sampling, if requested.
        gaps: approximation and amortization gap, if requested; distances from ``marginal``.
        seconds: that the guide's weights and log p(x) took.

    Example:

        >>> import torch
        >>> from ppvae.evaluation.likelihood.marginal import marginal_of, weights_of
        >>> marginal = marginal_of(weights_of(torch.zeros(10, 2, dtype=torch.float64)))
        >>> Row(marginal, annealed=None, gaps=None, seconds=0.1).marginal.bound(1).mean().item()
        0.0
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

    Example:

        >>> import ppvae, torch
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> model = LinearGaussian(torch.eye(2), torch.zeros(2))
        >>> guides = {"one": MeanFieldGaussian(nn.Linear(2, 4)), "two": MeanFieldGaussian(nn.Linear(2, 4))}
        >>> found = ppvae.compare(model, guides, torch.randn(4, 2), num_particles=50)
        >>> mean, standard_error = found.difference("one", "two")
        >>> (mean > 0) == (found.best() == "one")
        True
    """

    rows: dict[str, Row]
    pairs: dict[str, tuple[nn.Module, nn.Module]]
    batch: Batch

    def difference(self, a: str, b: str, k: int | None = None) -> tuple[float, float]:
        """Mean of a's less b's value, and its paired standard error; nats.

        Args:
            a, b: names of rows.
            k: compares the k-particle bounds of the two guides. None compares log p(x) where the models differ, and
                the bounds of all particles where two guides have one model, of which log p(x) is the same.
        """
        shared = self.pairs[a][0] is self.pairs[b][0]
        return self._difference(a, b, self.num_particles if k is None and shared else k)

    def best(self, k: int | None = None) -> str:
        """The name with the highest mean k-particle bound.

        With None: the name with the highest log p(x), and of several guides of that model the one with the highest
        bound of all particles.
        """
        order = [self.num_particles] if k is None else []
        return max(self.rows, key=lambda name: [self._values(name, each).mean().item() for each in (k, *order)])

    def records(self) -> dict[str, Record]:
        """The table as numbers, JSON-ready: means over the data, in nats; None where a number does not exist.

        ``guide_bound`` is the bound of all particles; ``guide_khat_bad`` and ``guide_median_ess`` tell whether the
        guide's weights could be trusted as an estimate of log p(x). ``log_p`` is shared by the guides of one model;
        ``log_p_failed`` is the share of the data with a bad k-hat, ``log_p_fitted`` the share with a fitted proposal.
        ``log_p_is_lower_bound``: k-hat is bad for more than 5% of the data, or the bound of a guide of the model is
        higher by three simulation errors, which shows that the proposals miss a part of the posterior.
        ``log_p_simulation_error`` is the Monte Carlo error for these data, ``log_p_sampling_error`` the error over the
        data. ``log_p_from_best`` exists where there are several models.
        """
        return {name: self._record(name, row) for name, row in self.rows.items()}

    def save(self, path: str | Path) -> None:
        """Write :meth:`records` as JSON."""
        Path(path).write_text(json.dumps(self.records(), indent=2, allow_nan=False) + "\n")

    def table(self) -> "Group":
        """As two rich tables with a row for each pair: the bounds and log p(x), and how far they can be trusted."""
        from rich.console import Group

        marked = any(map(self._is_lower_bound, self.rows))
        titles = (
            f"{len(self.batch)} data, {self.num_particles} particles; nats" + f"; {LOWER_BOUND}" * marked,
            f"failed: k-hat of {self.quantity} is bad; its errors are of simulation for these data, and over data",
        )
        return Group(*(self._part(heads, title) for heads, title in zip(_HEADS, titles, strict=True)))

    @property
    def quantity(self) -> str:
        """What the weights of the first pair estimate, such as "log p(x)"."""
        return self._first.quantity

    @property
    def num_particles(self) -> int:
        """Weights of each datum, K."""
        return self._first.num_particles

    @property
    def _first(self) -> LogMarginal:
        return next(iter(self.rows.values())).marginal

    def _part(self, heads: dict[str, str], title: str) -> "Table":
        from rich.box import SIMPLE
        from rich.table import Table

        records = self.records()
        shown = {h: key for h, key in heads.items() if any(r[key] is not None for r in records.values())}
        named = [head.format(K=self.num_particles, quantity=self.quantity) for head in shown]
        table = Table("", *named, title=title, box=SIMPLE)
        for name, record in records.items():
            table.add_row(name, *(_cell(record, quantity) for quantity in shown.values()))
        return table

    def print(self) -> None:
        """Print :meth:`table`."""
        from rich.console import Console

        Console().print(self.table())

    def plot(self) -> "Figure":
        """The distance of each guide's bounds, and of log p(x) of several models, from the best, as a figure.

        The bars are paired standard errors.
        """
        from ppvae.plots import dots_with_errors

        labels: dict[int | None, str] = {
            1: "evidence bound",
            self.num_particles: f"{self.num_particles}-particle bound",
        }
        if self._has_several_models:
            labels[None] = "lower bound on " * any(map(self._is_lower_bound, self.rows)) + self.quantity
        series = {}
        for k, label in labels.items():
            differences = [self._difference(name, self.best(k), k) for name in self.rows]
            series[label] = [mean for mean, _ in differences], [error for _, error in differences]
        return dots_with_errors(list(self.rows), series, "nats from the best")

    def to_arviz(self, name: str, draws: int = 500, seed: int = 0) -> Any:
        """One pair's posterior, log likelihood, prior and observed data for ArviZ; see :func:`inference_data`."""
        return inference_data(*self.pairs[name], self.batch, draws=draws, seed=seed)

    @property
    def _has_several_models(self) -> bool:
        return len({id(model) for model, _ in self.pairs.values()}) > 1

    def _is_lower_bound(self, name: str) -> bool:
        """Whether k-hat of log p(x) is bad, or the bound of a guide of its model is above it."""
        log_p, model = self.rows[name].marginal, self.pairs[name][0]
        guides = [row.marginal.guide for other, row in self.rows.items() if self.pairs[other][0] is model]
        return not log_p.is_reliable or any(_exceeds(guide, log_p) for guide in guides)

    def _values(self, name: str, k: int | None) -> Tensor:
        """The guide's k-particle bound of each datum, or log p(x)."""
        marginal = self.rows[name].marginal
        return marginal.value if k is None else marginal.bound(k)

    def _difference(self, a: str, b: str, k: int | None) -> tuple[float, float]:
        delta = self._values(a, k) - self._values(b, k)
        return delta.mean().item(), sampling_error(delta)

    def _from_best(self, key: str, name: str, k: int | None) -> dict[str, float]:
        mean, error = self._difference(name, self.best(k), k)
        return {f"{key}_from_best": mean, f"{key}_from_best_standard_error": error}

    def _record(self, name: str, row: Row) -> Record:
        log_p, guide, gaps = row.marginal, row.marginal.guide, row.gaps
        models = self._from_best("log_p", name, None)
        numbers = {
            "elbo": guide.bound(1).mean().item(),
            **self._from_best("elbo", name, 1),
            "guide_bound": guide.mean,
            **self._from_best("guide_bound", name, self.num_particles),
            "particles": self.num_particles,
            "guide_khat_bad": guide.khat_bad,
            "guide_median_ess": guide.median_ess,
            "log_p": log_p.mean,
            **(models if self._has_several_models else dict.fromkeys(models, math.nan)),
            "log_p_simulation_error": log_p.simulation_error,
            "log_p_sampling_error": log_p.sampling_error,
            "log_p_failed": log_p.khat_bad,
            "log_p_fitted": log_p.num_fitted / len(log_p.value),
            "log_p_is_lower_bound": self._is_lower_bound(name),
            "ais": math.nan if row.annealed is None else row.annealed.mean,
            "approximation_gap": math.nan if gaps is None else gaps.approximation.mean,
            "amortization_gap": math.nan if gaps is None else gaps.amortization.mean,
            "seconds": row.seconds,
        }
        return {key: None if math.isnan(number) else number for key, number in numbers.items()}

    def __repr__(self) -> str:
        return f"Comparison({', '.join(self.rows)}; {len(self.batch)} data, best {self.best()!r})"


LOWER_BOUND = "≥: lower bound, since k-hat is bad for more than 5% of the data or unknown, or a guide's bound is higher"

ROUNDING = 1e-3  # nats

_HEADS = (
    {
        "ELBO": "elbo",
        "less the best": "elbo_from_best",
        "{K}-particle bound": "guide_bound",
        "less the best ": "guide_bound_from_best",
        "{quantity}": "log_p",
        "less the best  ": "log_p_from_best",
    },
    {
        "guide's k-hat bad": "guide_khat_bad",
        "guide's ESS": "guide_median_ess",
        "{quantity} failed": "log_p_failed",
        "simulation error": "log_p_simulation_error",
        "sampling error": "log_p_sampling_error",
        "AIS": "ais",
        "approx. gap": "approximation_gap",
        "amort. gap": "amortization_gap",
        "seconds": "seconds",
    },
)


def _exceeds(bound: PerDatum, log_p: PerDatum) -> bool:
    """Whether the mean bound is above the mean of log p(x) by more than three simulation errors and rounding."""
    error = math.hypot(bound.simulation_error, log_p.simulation_error)
    return bound.mean - log_p.mean > 3 * error + ROUNDING


def _cell(record: Record, quantity: str) -> str:
    value = record[quantity]
    if value is None:
        return ""
    if quantity in ("guide_khat_bad", "log_p_failed"):
        return f"{value:.0%}"
    error = record.get(f"{quantity}_standard_error")
    digits = 1 if quantity in ("seconds", "guide_median_ess") else 2
    mark = "≥ " if quantity == "log_p" and record["log_p_is_lower_bound"] else ""
    return f"{mark}{value:.{digits}f}" + ("" if error is None else f" ± {error:.2f}")
