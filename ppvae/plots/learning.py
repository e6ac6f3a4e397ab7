"""Learning curves: which numbers of a run share an axis, and which do not."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

Curve = dict[int, float]  # a number by epoch

TOTALS = ("loss", "unlabelled_loss", "validation_loss")
COLOURS = {"training": "C0", "training, unlabelled rows": "C0", "validation": "C1", "": "0.35"}


def learning_curves(metrics: Sequence[Mapping[str, Any]]) -> Figure:
    """Losses by epoch: training and validation in one panel where they are the same quantity, all else in its own.

    The first panel compares the sum of those parts of the loss that training and validation both have, the next panels
    compare each of these parts. Of partially labelled data the training curves are those of the unlabelled rows: the
    labelled rows are repeated and have further terms. Every other number has a panel of its own: the total losses, if
    they contain more than the compared parts, and what ``fit(evaluate=...)`` added. From ten epochs on, the vertical
    range of losses does not cover the first fifth of them.

    Args:
        metrics: rows of ``FitResult.metrics`` or of ``metrics.jsonl``, one for each epoch.

    Raises ValueError for no rows.

    Example:

        >>> from ppvae.plots import learning_curves
        >>> row = {"epoch": 1, "loss": 90.0, "distortion": 70.0, "rate/z": 20.0}
        >>> validation = {"validation_loss": 95.0, "validation/distortion": 74.0, "validation/rate/z": 21.0}
        >>> [panel.get_title() for panel in learning_curves([row | validation]).axes]
        ['distortion + rate/z', 'distortion', 'rate/z']
    """
    if not metrics:
        raise ValueError("expected metrics of at least one epoch, got none")
    panels = _panels(_by_name(metrics))
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(4.2 * columns, 3.1 * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    legend: dict[str, Line2D] = {}
    for panel, (title, curves) in zip(axes, panels, strict=False):
        legend |= _draw(panel, title, curves)
    for unused in axes[len(panels) :]:
        unused.remove()
    if legend:
        figure.legend(legend.values(), legend.keys(), loc="outside upper center", ncols=2, frameon=False)
    return figure


def _by_name(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Curve]:
    """Each number of the metrics by epoch, in the order of the rows."""
    series: dict[str, Curve] = {}
    for row in metrics:
        for name, value in row.items():
            if name not in ("epoch", "step", "seconds") and isinstance(value, int | float):
                series.setdefault(name, {})[row["epoch"]] = value
    return series


def _panels(series: dict[str, Curve]) -> list[tuple[str, dict[str, Curve]]]:
    """Title and curves of each panel, the curves by label; a curve without a label is named by the title."""
    prefix, training = "", "training"
    if "unlabelled_loss" in series:
        prefix, training = "unlabelled/", "training, unlabelled rows"
    validated = [name.removeprefix("validation/") for name in series if name.startswith("validation/")]
    shared = [part for part in validated if prefix + part in series]
    titles = {" + ".join(shared): shared, **{part: [part] for part in shared}} if shared else {}
    panels = [
        (title, {training: _sum(series, prefix, parts), "validation": _sum(series, "validation/", parts)})
        for title, parts in titles.items()
    ]
    total = prefix.replace("/", "_") + "loss"
    if not validated and {total, "validation_loss"} <= series.keys():  # an estimator without named parts
        panels = [(total, {training: series[total], "validation": series["validation_loss"]})]
    drawn = {name for part in shared for name in (part, prefix + part, f"validation/{part}")}
    first = panels[0][1].values() if panels else ()
    drawn |= {name for name in TOTALS if name in series and any(_equal(series[name], curve) for curve in first)}
    return panels + [(name, {"": curve}) for name, curve in series.items() if name not in drawn]


def _sum(series: dict[str, Curve], prefix: str, parts: list[str]) -> Curve:
    """The sum of some parts in the epochs that have all of them."""
    curves_of_parts = [series[prefix + part] for part in parts]
    epochs = [epoch for epoch in curves_of_parts[0] if all(epoch in curve for curve in curves_of_parts)]
    return {epoch: sum(curve[epoch] for curve in curves_of_parts) for epoch in epochs}


def _equal(one: Curve, other: Curve) -> bool:
    """Whether two curves are the same but for rounding."""
    return one.keys() == other.keys() and all(math.isclose(one[e], other[e], rel_tol=1e-4) for e in one)


def _draw(panel: Axes, title: str, curves: dict[str, Curve]) -> dict[str, Line2D]:
    """Draw one panel. Returns the lines for the legend, by label."""
    lines = {}
    for label, curve in curves.items():
        marker = "." if len(curve) <= 40 else None
        (lines[label],) = panel.plot(*zip(*curve.items(), strict=True), marker=marker, color=COLOURS[label])
    panel.set_title(textwrap.fill(title, 44), fontsize=10)
    panel.set_xlabel("epoch")
    if len(lines) > 1 or title in TOTALS:
        panel.set_ylabel("nats per datum")
        _fit_to_later_epochs(panel, curves)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.grid(alpha=0.3)
    panel.spines[["top", "right"]].set_visible(False)
    return {label: line for label, line in lines.items() if label}


def _fit_to_later_epochs(panel: Axes, curves: dict[str, Curve]) -> None:
    """Choose the vertical range without the first fifth of the epochs, where there are at least ten of them."""
    epochs = sorted({epoch for curve in curves.values() for epoch in curve})
    first = epochs[len(epochs) // 5] if len(epochs) >= 10 else epochs[0]
    later = [v for curve in curves.values() for epoch, v in curve.items() if epoch >= first and math.isfinite(v)]
    if later and min(later) < max(later):
        margin = 0.08 * (max(later) - min(later))
        panel.set_ylim(min(later) - margin, max(later) + margin)
