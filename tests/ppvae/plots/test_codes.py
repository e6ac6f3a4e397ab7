"""Figures of predicted classes and latent codes."""

import numpy as np
import pytest
import torch

from ppvae import plots


def colour_bar(figure) -> list[str]:
    return [label.get_text() for label in figure.axes[1].get_yticklabels()]


def colours_by_class(figure, labels: torch.Tensor) -> dict[int, set]:
    """The colours of the points of each class."""
    points = figure.axes[0].collections[-1]
    colours = points.to_rgba(points.get_array())
    return {int(c): {tuple(colour) for colour in colours[(labels == c).numpy()]} for c in labels.unique()}


@pytest.mark.parametrize("classes", [1, 3, 10, 12, 20, 34])
def test_latent_space_gives_each_class_one_colour_of_its_own(classes):
    labels = torch.arange(5 * classes) % classes
    figure = plots.latent_space(torch.randn(len(labels), 3), labels)
    colours = colours_by_class(figure, labels)
    assert all(len(of_class) == 1 for of_class in colours.values())
    assert len(set.union(*colours.values())) == classes


def test_latent_space_names_the_classes_that_occur():
    labels = torch.tensor([3, 7, 105]).repeat(4)
    assert colour_bar(plots.latent_space(torch.randn(12, 3), labels)) == ["3", "7", "105"]
    labels = torch.arange(12)
    assert colour_bar(plots.latent_space(torch.randn(12, 3), labels)) == [str(c) for c in range(12)]
    named = colour_bar(plots.latent_space(torch.randn(200, 3), torch.arange(200)))
    assert named[:3] == ["0", "8", "16"]
    assert len(named) == 25


def test_latent_space_shows_unknown_labels_in_grey_without_a_class():
    labels = torch.tensor([-1, 0, 1, -1, 1, 0])
    figure = plots.latent_space(torch.randn(6, 3), labels)
    unknown, known = figure.axes[0].collections
    assert (len(unknown.get_offsets()), len(known.get_offsets())) == (2, 4)
    assert colour_bar(figure) == ["0", "1"]
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["unknown"]
    assert len(plots.latent_space(torch.randn(6, 3), torch.full((6,), -1)).axes) == 1  # no colour bar


def test_latent_space_projects_to_the_components_of_largest_variance():
    codes = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)).double() * torch.tensor([0.1, 3.0, 1.0])
    axes = plots.latent_space(codes, torch.zeros(500, dtype=torch.long)).axes[0]
    plane = axes.collections[0].get_offsets()
    variances = torch.linalg.eigvalsh(codes.T.cov()).flip(0).numpy()
    np.testing.assert_allclose(plane.var(0, ddof=1), variances[:2])
    assert f"{variances[0] / variances.sum():.0%}" in axes.get_xlabel()


def test_latent_space_takes_codes_of_half_precision_and_constant_codes():
    labels = torch.zeros(4, dtype=torch.long)
    plots.latent_space(torch.randn(4, 2).bfloat16(), labels)
    assert "(0% of the variance)" in plots.latent_space(torch.ones(4, 2), labels).axes[0].get_xlabel()


@pytest.mark.parametrize(("codes", "labels"), [((5, 1), 5), ((1, 5), 1), ((5,), 5), ((5, 2), 4)])
def test_latent_space_refuses_other_shapes(codes, labels):
    with pytest.raises(ValueError, match=r"expected codes \(B, D\)"):
        plots.latent_space(torch.zeros(codes), torch.zeros(labels, dtype=torch.long))


@pytest.mark.parametrize("classes", [1, 10, 34])
def test_latent_plane_shows_codes_as_they_are_with_one_colour_for_each_class(classes):
    codes, labels = torch.randn(5 * classes, 2), torch.arange(5 * classes) % classes
    figure = plots.latent_plane(codes, labels)
    np.testing.assert_allclose(figure.axes[0].collections[-1].get_offsets(), codes)
    assert len(set.union(*colours_by_class(figure, labels).values())) == classes
    assert figure.axes[0].get_aspect() == 1


def test_latent_plane_draws_the_circle_that_holds_95_percent_of_the_prior():
    codes = torch.randn(20_000, 2, generator=torch.Generator().manual_seed(0))
    labels = torch.full((len(codes),), -1)
    axes = plots.latent_plane(codes, labels).axes[0]
    radius = np.linalg.norm(axes.lines[0].get_xydata(), axis=1)
    np.testing.assert_allclose(radius, radius[0])
    inside = (codes.norm(dim=-1) < radius[0]).double().mean()
    assert abs(inside - 0.95) < 4 * (0.95 * 0.05 / len(codes)) ** 0.5
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["unknown", "95% of N(0, I)"]
    assert not plots.latent_plane(codes, labels, prior=False).axes[0].lines


@pytest.mark.parametrize(("codes", "labels"), [((5, 1), 5), ((5, 3), 5), ((5,), 5), ((5, 2), 4)])
def test_latent_plane_refuses_other_shapes(codes, labels):
    with pytest.raises(ValueError, match=r"expected codes \(B, 2\) and labels \(B,\).*use latent_space"):
        plots.latent_plane(torch.zeros(codes), torch.zeros(labels, dtype=torch.long))


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_confusion_counts_pairs_and_shades_by_share():
    figure = plots.confusion(torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 1]), 3)
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), [[2 / 3, 1 / 3, 0], [0, 1, 0], [0, 0, 0]])
    assert texts(figure.axes[0]) == ["2", "1", "1"]


@pytest.mark.parametrize("classes", [2, 12, 40, 41, 300])
def test_confusion_stays_readable_for_any_number_of_classes(classes):
    labels = torch.arange(classes)
    figure = plots.confusion(labels, labels, classes)
    axes = figure.axes[0]
    assert figure.get_size_inches().max() <= 13
    assert len(axes.get_xticks()) <= 25
    assert len(texts(axes)) == (classes if classes <= 40 else 0)


@pytest.mark.parametrize(
    ("true", "predicted", "message"),
    [
        ([-1, 0], [0, 0], "true classes from 0 to 1, got -1; leave out the rows of unknown label"),
        ([0, 0], [2, 0], "predicted classes from 0 to 1, got 2"),
        ([0, 0], [0], r"two shapes \(B,\), got \(2,\) and \(1,\)"),
    ],
)
def test_confusion_refuses_other_classes_and_shapes(true, predicted, message):
    with pytest.raises(ValueError, match=message):
        plots.confusion(torch.tensor(true), torch.tensor(predicted), 2)


def test_mutual_information_heatmap_shows_dimensions_by_factors():
    axes = plots.mutual_information_heatmap(np.array([[0.69, 0.0], [0.0, 1.1], [0.0, 0.0]]), ["a", "b"]).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["z0", "z1", "z2"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b"]
    assert texts(axes) == ["0.69", "0.00", "0.00", "1.10", "0.00", "0.00"]
    assert texts(plots.mutual_information_heatmap(np.zeros((1, 1)), ["a"]).axes[0]) == ["0.00"]


def test_mutual_information_heatmap_takes_names_of_the_dimensions():
    axes = plots.mutual_information_heatmap(np.zeros((2, 1)), ["a"], ["z0", "class"]).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["z0", "class"]


def test_correlation_heatmaps_has_a_panel_for_each_kind_and_leaves_nan_empty():
    one, other = np.array([[1.0, 0.4], [0.4, 1.0]]), np.array([[1.0, np.nan], [np.nan, -0.5]])
    figure = plots.correlation_heatmaps({"Pearson": one, "Kendall": other}, ["a", "b"])
    first, second, bar = figure.axes
    assert [first.get_title(), second.get_title()] == ["Pearson", "Kendall"]
    assert texts(first) == ["1.00", "0.40", "0.40", "1.00"]
    assert texts(second) == ["1.00", "-0.50"]
    assert first.images[0].get_clim() == (-1, 1)
    assert [label.get_text() for label in first.get_yticklabels()] == ["a", "b"]
    assert bar.get_ylabel() == "correlation coefficient"


@pytest.mark.parametrize("wrong", [{}, {"Pearson": np.eye(3)}])
def test_correlation_heatmaps_refuse_other_shapes(wrong):
    with pytest.raises(ValueError, match=r"expected values of shape \(2, 2\)"):
        plots.correlation_heatmaps(wrong, ["a", "b"])
