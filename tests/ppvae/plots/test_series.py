"""Figures that compare named series."""

import math

import numpy as np
import pytest
import torch

from ppvae import plots

NAMES = ["one", "two", "three"]
MANY = [f"s{i}" for i in range(12)]


def colours(artists) -> set:
    return {tuple(np.round(np.ravel(artist), 6)) for artist in artists}


def test_dots_with_errors_keeps_the_dots_of_a_name_in_its_row():
    figure = plots.dots_with_errors(NAMES, {s: ([0.0, 1.0, 2.0], [0.1] * 3) for s in MANY}, "nats")
    dots = [container[0] for container in figure.axes[0].containers]
    rows = np.array([line.get_ydata() for line in dots])
    assert (np.abs(rows - np.arange(3)) < 1).all()
    assert rows.max(0)[0] < rows.min(0)[1]  # above the next name
    assert [text.get_text() for text in figure.legends[0].get_texts()] == MANY
    assert len(colours(line.get_color() for line in dots)) == 12


def test_stacked_bars_put_parts_end_to_end():
    parts = {"a": [1.0, 2.0, 0.0], "b": [0.5, 0.5, 0.5]}
    axes = plots.stacked_bars(NAMES, parts, "nats", errors={"a": [0.1] * 3, "b": [0.2] * 3}).axes[0]
    ends = [(bar.get_x(), bar.get_width()) for bar in axes.patches]
    assert ends == [(0, 1), (0, 2), (0, 0), (1, 0.5), (2, 0.5), (0, 0.5)]


@pytest.mark.parametrize(
    "figure",
    [
        lambda: plots.stacked_bars(["x"], {s: [1.0] for s in MANY}, "nats"),
        lambda: plots.curves([0, 1], {s: [1.0, 2.0] for s in MANY}, "step", "nats"),
    ],
    ids=["stacked_bars", "curves"],
)
def test_twelve_series_have_twelve_colours(figure):
    axes = figure().axes[0]
    drawn = [patch.get_facecolor() for patch in axes.patches] or [line.get_color() for line in axes.lines]
    assert len(colours(drawn)) == 12


def test_curves_draws_each_series_over_the_places():
    axes = plots.curves([0, 10], {"a": [1.0, 2.0], "b": [3.0, 4.0]}, "step", "nats").axes[0]
    assert [line.get_xydata().tolist() for line in axes.lines] == [[[0, 1], [10, 2]], [[0, 3], [10, 4]]]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("step", "nats")


def test_curves_draws_bars_of_the_errors():
    axes = plots.curves([0, 10], {"a": [1.0, 2.0]}, "step", "nats", errors={"a": [0.5, 0.25]}).axes[0]
    (bars,) = axes.containers[0][2]
    assert [segment.tolist() for segment in bars.get_segments()] == [[[0, 0.5], [0, 1.5]], [[10, 1.75], [10, 2.25]]]


def test_scatter_draws_one_panel_for_each_y():
    figure = plots.scatter({"a": [(1.0, 10.0, 100.0), (2.0, 20.0, 200.0)]}, "x", ["y", "z"])
    points = [panel.collections[0].get_offsets().tolist() for panel in figure.axes]
    assert points == [[[1, 10], [2, 20]], [[1, 100], [2, 200]]]


def test_bounds_draws_means_with_the_errors_of_paired_distances():
    log_p = torch.tensor([-90.0, -110.0])
    of_guide = {1: log_p - torch.tensor([4.0, 6.0]), 100: log_p - torch.tensor([1.0, 1.0])}
    axes = plots.bounds(of_guide, log_p, simulation_error=0.25, label="log p(x)").axes[0]
    [dots, _, [bars]] = next(c for c in axes.containers if len(c) == 3)
    assert dots.get_xydata().tolist() == [[1, -105], [100, -101]]
    # sd of the distances (4, 6), over sqrt 2: 1; the distances (1, 1) do not vary, although log p(x) does by 14 nats
    assert [bar[:, 1].tolist() for bar in bars.get_segments()] == [[-106, -104], [-101, -101]]
    [line] = [line for line in axes.lines if line.get_label().startswith("log p(x)")]
    assert list(line.get_ydata()) == [-100, -100]
    [band] = axes.patches
    assert (band.get_y(), band.get_height()) == (-100.25, 0.5)


def test_bounds_labels_axes_with_units_and_particle_counts():
    figure = plots.bounds({k: torch.zeros(3) for k in (1, 10, 1000)}, torch.ones(3), 0.1, "lower bound on log p(x)")
    axes = figure.axes[0]
    assert (axes.get_xscale(), axes.get_xlabel()) == ("log", "particles")
    assert axes.get_ylabel() == "nats per datum, mean of 3 data"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "10", "1,000"]
    assert any(text.get_text().startswith("lower bound on log p(x)") for text in figure.legends[0].get_texts())


@pytest.mark.filterwarnings("error")
def test_bounds_draws_a_single_datum_of_a_single_particle():
    """There is no error over one datum and no simulation error of one particle."""
    figure = plots.bounds({1: torch.tensor([-1.0])}, torch.tensor([-1.0]), math.nan, "lower bound on log p(x)")
    figure.canvas.draw()
    assert np.isfinite(figure.axes[0].get_ylim()).all()
