"""Figures of predicted classes and latent codes."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from torch import Tensor

from ppvae.plots.colours import distinct_colours

MAX_TICKS = 25
MAX_COUNTS = 40  # classes up to which the counts of a confusion matrix fit into its cells


def confusion(true: Tensor, predicted: Tensor, num_classes: int) -> Figure:
    """Counts of (true class, predicted class). The shade is the share of the true class.

    Args:
        true: classes, long, shape (B,).
        predicted: classes, long, shape (B,).
        num_classes: number of classes; the counts are written into the cells for up to 40.

    Raises ValueError for different shapes and for classes outside 0 to ``num_classes - 1``.

    Example:

        >>> import torch
        >>> from ppvae.plots import confusion
        >>> confusion(torch.tensor([0, 1, 1]), torch.tensor([0, 1, 0]), 2).axes[0].images[0].get_array().tolist()
        [[1.0, 0.0], [0.5, 0.5]]
    """
    _check_classes(true, predicted, num_classes)
    counts = np.zeros((num_classes, num_classes), dtype=int)
    np.add.at(counts, (true.cpu().numpy(), predicted.cpu().numpy()), 1)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    size = 1 + min(0.5 * num_classes, 12)
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.subplots()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    if num_classes <= MAX_COUNTS:
        _write_into_cells(axes, share > 0.5, [[f"{count}" if count else "" for count in row] for row in counts])
    ticks = _ticks(num_classes)
    axes.set(xticks=ticks, yticks=ticks, xlabel="predicted class", ylabel="true class")
    return figure


def latent_space(codes: Tensor, labels: Tensor) -> Figure:
    """The first two principal components of codes, one colour for each class; grey for unknown labels.

    Args:
        codes: shape (B, D), B and D at least 2.
        labels: classes, shape (B,), any number of them; -1 where unknown.

    Raises ValueError for other shapes.

    Example:

        >>> import torch
        >>> from ppvae.plots import latent_space
        >>> figure = latent_space(torch.randn(24, 3), torch.arange(24) % 12)
        >>> figure.axes[1].get_yticklabels()[-1].get_text()
        '11'
    """
    if codes.dim() != 2 or min(codes.shape) < 2 or labels.shape != codes.shape[:1]:
        raise ValueError(
            f"expected codes (B, D), B and D at least 2, and labels (B,), got {tuple(codes.shape)} and "
            f"{tuple(labels.shape)}"
        )
    plane, shares = _principal_components(codes.detach().cpu().double().numpy())
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    _scatter_classes(figure, axes, plane, labels.cpu().numpy())
    axes.set_xlabel(f"first principal component ({shares[0]:.0%} of the variance)")
    axes.set_ylabel(f"second principal component ({shares[1]:.0%} of the variance)")
    return figure


def latent_plane(codes: Tensor, labels: Tensor, prior: bool = True) -> Figure:
    """Codes of two elements as they are, one colour for each class; grey for unknown labels.

    Args:
        codes: shape (B, 2).
        labels: classes, shape (B,), any number of them; -1 where unknown.
        prior: draw the circle that holds 95% of N(0, I).

    Raises ValueError for other shapes.

    Example:

        >>> import torch
        >>> from ppvae.plots import latent_plane
        >>> axes = latent_plane(torch.randn(24, 2), torch.arange(24) % 12).axes[0]
        >>> axes.get_xlabel(), axes.get_ylabel()
        ('z0', 'z1')
    """
    if codes.dim() != 2 or codes.shape[1] != 2 or labels.shape != codes.shape[:1]:
        raise ValueError(
            f"expected codes (B, 2) and labels (B,), got {tuple(codes.shape)} and {tuple(labels.shape)}; use "
            "latent_space for longer codes"
        )
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    _scatter_classes(figure, axes, codes.detach().cpu().double().numpy(), labels.cpu().numpy())
    if prior:
        radius = math.sqrt(-2 * math.log(0.05))  # |z|^2 / 2 is exponential
        angle = np.linspace(0, 2 * np.pi, 200)
        axes.plot(radius * np.cos(angle), radius * np.sin(angle), "k--", linewidth=1, label="95% of N(0, I)")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper right", markerscale=3)
    axes.set(xlabel="z0", ylabel="z1", aspect="equal", adjustable="datalim")
    return figure


def mutual_information_heatmap(
    information: ArrayLike, factor_names: Sequence[str], dimension_names: Sequence[str] | None = None
) -> Figure:
    """Mutual information of dimensions and factors, one row for each dimension, one column for each factor.

    Args:
        information: I(z_d; v_k), nats, shape (D, F).
        factor_names: F names.
        dimension_names: D names; z0, z1 and so on if None.

    Example:

        >>> from ppvae.plots import mutual_information_heatmap
        >>> figure = mutual_information_heatmap([[0.7, 0.0], [0.0, 0.6]], ["shape", "x"])
        >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
        ['z0', 'z1']
    """
    information = np.asarray(information)
    rows, columns = information.shape
    figure = Figure(figsize=(0.8 * columns + 2, 0.4 * rows + 1.2), layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(information, cmap="Blues", vmin=0, aspect="auto")
    texts = [[f"{value:.2f}" for value in row] for row in information]
    _write_into_cells(axes, information > 0.5 * information.max(), texts)
    axes.set_xticks(range(columns), factor_names)
    axes.set_yticks(range(rows), dimension_names or [f"z{d}" for d in range(rows)])
    axes.xaxis.tick_top()
    figure.colorbar(picture, ax=axes, label="mutual information, nats")
    return figure


def correlation_heatmaps(coefficients: Mapping[str, ArrayLike], names: Sequence[str]) -> Figure:
    """Correlations from -1 to 1 of several quantities, one panel for each kind; grey where a value is NaN.

    Args:
        coefficients: title of each panel -> values, shape (M, M).
        names: M names.

    Raises ValueError without a panel, and for values of another shape.

    Example:

        >>> from ppvae.plots import correlation_heatmaps
        >>> figure = correlation_heatmaps({"Pearson correlation": [[1.0, 0.4], [0.4, 1.0]]}, ["FactorVAE", "MIG"])
        >>> figure.axes[0].get_title()
        'Pearson correlation'
    """
    panels = {title: np.asarray(values, float) for title, values in coefficients.items()}
    size = len(names)
    if not panels or any(values.shape != (size, size) for values in panels.values()):
        raise ValueError(f"expected values of shape ({size}, {size}), got {[v.shape for v in panels.values()]}")
    side = 1.2 + 0.45 * size
    figure = Figure(figsize=(side * len(panels) + 1, side), layout="constrained")
    for axes, (title, values) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        axes.set_facecolor("0.8")
        picture = axes.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1)
        texts = [["" if np.isnan(value) else f"{value:.2f}" for value in row] for row in values]
        _write_into_cells(axes, np.abs(values) > 0.6, texts)
        axes.set_xticks(range(size), names, rotation=90)
        axes.set_yticks(range(size), names if axes is figure.axes[0] else [""] * size)
        axes.set_title(title)
    figure.colorbar(picture, ax=figure.axes, label="correlation coefficient")
    return figure


def _check_classes(true: Tensor, predicted: Tensor, num_classes: int) -> None:
    if true.dim() != 1 or true.shape != predicted.shape:
        raise ValueError(f"expected two shapes (B,), got {tuple(true.shape)} and {tuple(predicted.shape)}")
    for name, classes in (("true", true), ("predicted", predicted)):
        outside = classes[(classes < 0) | (classes >= num_classes)]
        if len(outside):
            raise ValueError(
                f"expected {name} classes from 0 to {num_classes - 1}, got {outside[0].item()}; leave out the rows "
                "of unknown label"
            )


def _principal_components(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first two principal components, (B, 2), and their shares of the variance, (2,)."""
    centred = codes - codes.mean(0)
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    return centred @ directions[:2].T, singular[:2] ** 2 / max(float((singular**2).sum()), 1e-300)


def _write_into_cells(axes: Axes, dark: np.ndarray, texts: Sequence[Sequence[str]]) -> None:
    """Write texts into the cells of an image, in white on dark cells; nothing for an empty text."""
    for row, column in np.ndindex(*dark.shape):
        if texts[row][column]:
            colour = "white" if dark[row, column] else "black"
            axes.text(column, row, texts[row][column], ha="center", va="center", color=colour, fontsize=8)


def _scatter_classes(figure: Figure, axes: Axes, plane: np.ndarray, labels: np.ndarray) -> None:
    """Points (B, 2) coloured by class, with a colour bar that names the classes that occur."""
    known = labels >= 0
    if not known.all():
        x, y = plane[~known].T
        axes.scatter(x, y, color="0.7", s=5, linewidths=0, label="unknown")
        axes.legend(markerscale=3)
    classes, number = np.unique(labels[known], return_inverse=True)
    if len(classes) == 0:
        return
    colours = ListedColormap(distinct_colours(len(classes)))
    x, y = plane[known].T
    points = axes.scatter(x, y, c=number, cmap=colours, vmin=-0.5, vmax=len(classes) - 0.5, s=5, linewidths=0)
    bar = figure.colorbar(points, ax=axes, label="class")
    ticks = _ticks(len(classes))
    bar.set_ticks(ticks, labels=[str(classes[tick]) for tick in ticks])
    bar.minorticks_off()


def _ticks(number: int) -> list[int]:
    """Indices from 0 to number - 1, equally spaced and few enough to be read."""
    return list(range(0, number, math.ceil(number / MAX_TICKS)))
