"""Agreement of metrics: correlations between the scores that several metrics give to the same runs."""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ppvae.errors import DataError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

LEAST_RUNS = 3  # with two every coefficient is 1 or -1
EXACT_RUNS = 8  # up to which Spearman's p-value counts all orders of the runs
ROUNDING = 1e-9  # of a sum of products of ranks

Scores = Mapping[str, Sequence[float | None]]


@dataclass(frozen=True, eq=False)
class Agreement:
    """Rank and linear correlations of M metrics, as returned by :func:`metric_agreement`.

    Attributes:
        names: of the metrics.
        coefficients: "pearson", "kendall" and "spearman", each (M, M); NaN where it is not defined.
        p_values: by the same names, each (M, M), two-sided, under independent runs; NaN where a coefficient is not
            defined, and for a metric with itself.
        num_runs: runs in which both metrics have a score, (M, M).

    Example:

        >>> from ppvae.evaluation.disentanglement import metric_agreement
        >>> found = metric_agreement({"factor_vae": [0.5, 0.6, 0.8, 0.9], "mig": [0.1, 0.3, 0.2, 0.4]})
        >>> {name: round(value, 3) for name, (value, _) in found.between("factor_vae", "mig").items()}
        {'pearson': 0.707, 'kendall': 0.667, 'spearman': 0.8}
    """

    names: tuple[str, ...]
    coefficients: dict[str, np.ndarray]
    p_values: dict[str, np.ndarray]
    num_runs: np.ndarray

    def between(self, one: str, other: str) -> dict[str, tuple[float, float]]:
        """Each coefficient of two metrics, with its p-value. Raises DataError for a name without scores."""
        unknown = [name for name in (one, other) if name not in self.names]
        if unknown:
            raise DataError(f"expected names among {', '.join(self.names)}, got {', '.join(unknown)}")
        at = self.names.index(one), self.names.index(other)
        return {kind: (float(found[at]), float(self.p_values[kind][at])) for kind, found in self.coefficients.items()}

    def to_dict(self) -> dict[str, Any]:
        """All numbers, ready for JSON; None for NaN."""
        return {
            "names": list(self.names),
            "num_runs": self.num_runs.tolist(),
            **{kind: _without_nan(found) for kind, found in self.coefficients.items()},
            **{f"{kind}_p": _without_nan(found) for kind, found in self.p_values.items()},
        }

    def table(self) -> "Table":
        """A table with a row for each two metrics: the coefficients with their p-values, and the number of runs."""
        from rich.table import Table

        table = Table("", "", *(f"{kind.capitalize()} (p)" for kind in self.coefficients), "runs")
        for one, other in itertools.combinations(self.names, 2):
            cells = [_cell(*found) for found in self.between(one, other).values()]
            runs = self.num_runs[self.names.index(one), self.names.index(other)]
            table.add_row(one, other, *cells, str(runs))
        return table

    def plot(self) -> "Figure":
        """The coefficients, by :func:`ppvae.plots.correlation_heatmaps`, with the number of runs as title."""
        from ppvae.plots import correlation_heatmaps

        panels = {f"{kind.capitalize()} correlation": found for kind, found in self.coefficients.items()}
        figure = correlation_heatmaps(panels, self.names)
        least, most = self.num_runs.min(), self.num_runs.max()
        figure.suptitle(f"agreement over {most} runs" if least == most else f"agreement over {least} to {most} runs")
        return figure


def metric_agreement(scores: Scores) -> Agreement:
    """Pearson, Kendall (tau-b) and Spearman correlations between metrics over runs, with p-values.

    Two metrics are compared over the runs in which both have a score. Their coefficients are NaN where these are fewer
    than three runs, or where one of the two metrics is constant over them. The p-values are those of scipy, except that
    Spearman's is exact for up to eight runs. They hold for independent runs; the checkpoints of one run are not
    independent.

    Args:
        scores: values of each metric for R runs, in the same order; None or NaN where a run has no score.

    Raises DataError for fewer than two metrics, for different numbers of runs and for infinite scores.

    Source: Kim and Mnih 2018, "Disentangling by Factorising", which reports .404 (Pearson), .310 (Kendall) and .444
    (Spearman) for its metric and that of Higgins et al. 2017.

    Example:

        >>> from ppvae.evaluation.disentanglement import metric_agreement
        >>> scores = {"mig": [0.1, 0.2, 0.4, None], "sap": [0.3, 0.2, 0.1, 0.0], "irs": [0.5, 0.5, 0.5, 0.5]}
        >>> found = metric_agreement(scores)
        >>> found.num_runs.tolist()
        [[3, 3, 3], [3, 4, 4], [3, 4, 4]]
        >>> found.coefficients["spearman"].round(2).tolist()
        [[1.0, -1.0, nan], [-1.0, 1.0, nan], [nan, nan, nan]]
    """
    values = _table_of(scores)
    count = len(values)
    known = np.isfinite(values)
    kinds = _coefficients()
    coefficients, p_values = ({kind: np.full((count, count), np.nan) for kind in kinds} for _ in range(2))
    for i, j in itertools.combinations_with_replacement(range(count), 2):
        one, other = values[:, known[i] & known[j]][[i, j]]
        if len(one) < LEAST_RUNS or np.ptp(one) == 0 or np.ptp(other) == 0:
            continue
        for kind, function in kinds.items():
            value, p = (1.0, np.nan) if i == j else function(one, other)
            coefficients[kind][i, j] = coefficients[kind][j, i] = value
            p_values[kind][i, j] = p_values[kind][j, i] = p
    return Agreement(tuple(scores), coefficients, p_values, known.astype(int) @ known.T.astype(int))


def _coefficients() -> dict[str, Callable[[np.ndarray, np.ndarray], tuple[float, float]]]:
    from scipy import stats

    return {"pearson": stats.pearsonr, "kendall": stats.kendalltau, "spearman": _spearman}


def _spearman(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """The coefficient and its p-value: that of scipy has a t distribution, and is 0 for one order of few runs."""
    from scipy import stats

    value, p = stats.spearmanr(one, other)
    if len(one) > EXACT_RUNS:
        return value, p
    ranks, others = (stats.rankdata(values) - (len(one) + 1) / 2 for values in (one, other))
    products = others[_orders(len(one))] @ ranks
    return value, float((np.abs(products) >= abs(others @ ranks) - ROUNDING).mean())


@functools.cache
def _orders(count: int) -> np.ndarray:
    """All orders of so many runs, shape (count!, count)."""
    return np.array(list(itertools.permutations(range(count))))


def _table_of(scores: Scores) -> np.ndarray:
    """One row for each metric, (M, R), NaN where there is no score."""
    lengths = {name: len(column) for name, column in scores.items()}
    if len(lengths) < 2 or len(set(lengths.values())) > 1:
        raise DataError(f"expected scores of at least two metrics for the same runs, got numbers of runs {lengths}")
    values = np.array([[np.nan if value is None else value for value in column] for column in scores.values()], float)
    infinite = [name for name, row in zip(scores, np.isinf(values).any(1), strict=True) if row]
    if infinite:
        raise DataError(f"expected finite scores, None or NaN where a run has none, got inf for {', '.join(infinite)}")
    return values


def _without_nan(found: np.ndarray) -> list[list[float | None]]:
    return [[None if np.isnan(value) else float(value) for value in row] for row in found]


def _cell(value: float, p: float) -> str:
    return "" if np.isnan(value) else f"{value:.3f} ({p:.2g})"
