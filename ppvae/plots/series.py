"""Figures that compare named series of numbers."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from ppvae.plots.colours import distinct_colours


def dots_with_errors(
    names: Sequence[str], series: Mapping[str, tuple[Sequence[float], Sequence[float]]], label: str
) -> Figure:
    """One row for each name, one dot for each series, with a bar of one standard error on each side.

    Args:
        names: of the rows.
        series: values and standard errors by name, each as long as ``names``.
        label: of the axis of values, with its unit.

    Example:

        >>> from ppvae.plots import dots_with_errors
        >>> figure = dots_with_errors(["VAE", "IWAE"], {"bound": ([-2.0, 0.0], [0.1, 0.0])}, "nats from the best")
        >>> figure.axes[0].get_xlabel()
        'nats from the best'
    """
    figure = Figure(figsize=(6, 1.5 + 0.4 * len(names)), layout="constrained")
    axes = figure.subplots()
    distance = min(0.15, 0.8 / max(1, len(series)))
    for number, ((name, (values, errors)), colour) in enumerate(_coloured(series)):
        rows = [row + distance * number for row in range(len(names))]
        axes.errorbar(values, rows, xerr=errors, fmt="o", capsize=3, label=name, color=colour)
    axes.set(yticks=range(len(names)), yticklabels=names, xlabel=label)
    axes.invert_yaxis()
    axes.axvline(0, color="0.8", zorder=0)
    figure.legend(loc="outside upper center", ncols=min(len(series), 4))
    return figure


def stacked_bars(
    names: Sequence[str],
    parts: Mapping[str, Sequence[float]],
    label: str,
    errors: Mapping[str, Sequence[float]] | None = None,
) -> Figure:
    """One row for each name, with its parts end to end from 0.

    Args:
        names: of the rows.
        parts: values by name, each as long as ``names``.
        label: of the axis of values, with its unit.
        errors: standard errors of the parts by the same names, drawn at the end of each part; None for none.

    Example:

        >>> from ppvae.plots import stacked_bars
        >>> figure = stacked_bars(["VAE"], {"approximation": [1.0], "amortization": [2.0]}, "nats below log p(x)")
        >>> [float(patch.get_x()) for patch in figure.axes[0].patches]
        [0.0, 1.0]
    """
    figure = Figure(figsize=(6, 1.5 + 0.4 * len(names)), layout="constrained")
    axes = figure.subplots()
    ends = np.zeros(len(names))
    for (part, values), colour in _coloured(parts):
        error = None if errors is None else errors[part]
        axes.barh(list(names), values, left=ends, xerr=error, capsize=3, label=part, color=colour)
        ends = ends + np.asarray(values)
    axes.axvline(0, color="0.8", zorder=0)
    axes.set_xlabel(label)
    axes.invert_yaxis()
    figure.legend(loc="outside upper center", ncols=min(len(parts), 4))
    return figure


def curves(
    x: Sequence[float],
    series: Mapping[str, Sequence[float]],
    x_label: str,
    y_label: str,
    errors: Mapping[str, Sequence[float]] | None = None,
) -> Figure:
    """One line for each series, over common places. NaN leaves a gap.

    Args:
        x: the places.
        series: values by name, each as long as ``x``.
        x_label: of the places, with their unit.
        y_label: of the values, with their unit.
        errors: half lengths of vertical bars at the values, by the same names; None for none.

    Example:

        >>> from ppvae.plots import curves
        >>> figure = curves([0, 100], {"exact": [1.6, 0.4], "critic": [0.2, 0.1]}, "step", "total correlation, nats")
        >>> len(figure.axes[0].lines)
        2
    """
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    for (name, values), colour in _coloured(series):
        error = None if errors is None else errors[name]
        axes.errorbar(x, values, yerr=error, marker="o", capsize=3, label=name, color=colour)
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def bounds(by_particles: Mapping[int, Tensor], log_p: Tensor, simulation_error: float, label: str) -> Figure:
    """The mean bound of a guide by its number of particles, and the mean of log p(x) as a line.

    The bars are one standard error of the mean distance to log p(x) over the data, sd(log p(x) - bound) / sqrt(B). The
    errors of the two means over the data are far larger, but nearly equal, and they cancel in the distance. The band is
    one simulation error of log p(x) on each side.

    Args:
        by_particles: bounds of the data, shape (B,), by number of particles; nats.
        log_p: log p(x) of the same data, shape (B,); nats.
        simulation_error: Monte Carlo standard error of the mean of ``log_p``; nats. NaN draws no band.
        label: name of ``log_p``, such as "log p(x)" or "lower bound on log p(x)".

    Example:

        >>> import torch
        >>> from ppvae.plots import bounds
        >>> log_p = torch.tensor([-2.0, -1.0])
        >>> figure = bounds({1: log_p - 1, 10: log_p - 0.3}, log_p, simulation_error=0.1, label="log p(x)")
        >>> figure.axes[0].get_xscale(), figure.axes[0].get_ylabel()
        ('log', 'nats per datum, mean of 2 data')
    """
    figure = Figure(figsize=(6, 3.8), layout="constrained")
    axes = figure.subplots()
    counts, values = list(by_particles), [bound.double() for bound in by_particles.values()]
    mean = log_p.double().mean().item()
    axes.axhline(mean, color="C1", label=f"{label}; band: simulation error")
    axes.axhspan(mean - simulation_error, mean + simulation_error, color="C1", alpha=0.3, linewidth=0)
    axes.errorbar(
        counts,
        [bound.mean().item() for bound in values],
        yerr=[_error_over_data(log_p - bound) for bound in values],
        fmt="o-",
        capsize=3,
        color="C0",
        label="guide's bound; bars: standard error of its distance from the line",
    )
    axes.set(xscale="log", xlabel="particles", ylabel=f"nats per datum, mean of {len(log_p)} data")
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    figure.legend(loc="outside upper center")
    return figure


def scatter(points: Mapping[str, Sequence[Sequence[float]]], x_label: str, y_labels: Sequence[str]) -> Figure:
    """One panel for each y, with one point for each row of each name.

    Args:
        points: rows (x, y, y, ...) by name.
        x_label: of x, with its unit.
        y_labels: of each y, with their units.

    Example:

        >>> from ppvae.plots import scatter
        >>> figure = scatter({"beta-VAE": [(20.0, 0.1, 0.7), (25.0, 0.2, 0.8)]}, "error, nats", ["MIG", "FactorVAE"])
        >>> [panel.get_ylabel() for panel in figure.axes]
        ['MIG', 'FactorVAE']
    """
    figure = Figure(figsize=(4.5 * len(y_labels), 3.8), layout="constrained")
    panels = figure.subplots(1, len(y_labels), squeeze=False)[0]
    for index, (panel, label) in enumerate(zip(panels, y_labels, strict=True)):
        for number, ((name, rows), colour) in enumerate(_coloured(points)):
            x, y = [row[0] for row in rows], [row[1 + index] for row in rows]
            panel.scatter(x, y, label=name, color=colour, marker="osD^vPX*"[number // 10 % 8])
        panel.set(xlabel=x_label, ylabel=label)
        panel.grid(alpha=0.3)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper")
    return figure


def _coloured(series: Mapping[str, Any]) -> Iterator[tuple[tuple[str, Any], np.ndarray]]:
    """The items of a mapping, each with a colour of its own."""
    return zip(series.items(), distinct_colours(len(series)), strict=True)


def _error_over_data(values: Tensor) -> float:
    """Standard error of the mean, sd / sqrt(B); 0 for a single one."""
    return (values.std() / len(values) ** 0.5).item() if len(values) > 1 else 0.0
