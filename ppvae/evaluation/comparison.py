"""Results of several pairs on the same data: one table, with paired differences.

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
from ppvae.evaluation.likelihood.per_datum import sampling_error

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Group
    from rich.table import Table

Record = dict[str, float | None]


@dataclass(frozen=True, eq=False)
class Row:
    """The results of one pair.

    Attributes:
        marginal: importance-weighted estimates: ``bound(1)`` is the evidence bound, ``value`` that of all particles.
        annealed: annealed importance sampling, if requested.
        gaps: approximation and amortization gap, if requested; of all guides of one model from one
            log p(x), the tightest of all its estimates.
        seconds: that ``marginal`` took.

    Example:

        >>> import torch
        >>> ones = torch.ones(2)
        >>> marginal = LogMarginal(-ones, 0 * ones, ess=ones, khat=ones, num_particles=10)
        >>> Row(marginal, annealed=None, gaps=None, seconds=0.1).marginal.mean
        -1.0
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
            f"{self.quantity} is a lower bound where k-hat is bad; its errors are of simulation for these data, and "
            "over data",
        )
        return Group(*(self._part(heads, title) for heads, title in zip(_HEADS, titles, strict=True)))

    @property
    def quantity(self) -> str:
        """What the weights of the first pair estimate, such as "log p(x)"."""
        return next(iter(self.rows.values())).marginal.quantity

    def _part(self, heads: dict[str, str], title: str) -> "Table":
        from rich.box import SIMPLE
        from rich.table import Table

        records = self.records()
        shown = {h: key for h, key in heads.items() if any(r[key] is not None for r in records.values())}
        named = [head.replace("log p(x)", self.quantity) for head in shown]
        table = Table("", *named, title=title, box=SIMPLE)
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
        "seconds": "seconds",
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
