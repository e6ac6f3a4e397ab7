"""Pictures of what a person would rather see than read. Each function returns a matplotlib ``Figure``."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor


def learning_curves(metrics: Sequence[dict]) -> Figure:
    """One panel for the losses (nats per datum), one for every other number that is followed by epoch."""
    names = [name for name in metrics[-1] if name not in ("epoch", "step", "seconds")]
    losses = [name for name in names if name.endswith("loss")]
    others = [name for name in names if name not in losses]
    figure = Figure(figsize=(5 * (1 + len(others)), 3.5), layout="constrained")
    panels = figure.subplots(1, 1 + len(others), squeeze=False)[0]
    for panel, group in zip(panels, [losses, *([name] for name in others)], strict=True):
        for name in group:
            rows = [row for row in metrics if name in row]
            panel.plot([row["epoch"] for row in rows], [row[name] for row in rows], marker=".", label=name)
        panel.set_xlabel("epoch")
        panel.set_ylabel("loss, nats per datum" if group is losses else group[0])
        panel.grid(alpha=0.3)
        if len(group) > 1:
            panel.legend()
    return figure


def image_grid(images: Tensor, row_labels: Sequence[str] = (), column_labels: Sequence[str] = ()) -> Figure:
    """Grey images of shape (rows, columns, H, W), or (rows, columns, 3, H, W) in colour, values in [0, 1]."""
    pixels = _colours_last(images)
    rows, columns, height, width, *colours = pixels.shape
    gap = 1
    sheet = np.ones((rows * (height + gap) - gap, columns * (width + gap) - gap, *colours))
    for row in range(rows):
        for column in range(columns):
            top, left = row * (height + gap), column * (width + gap)
            sheet[top : top + height, left : left + width] = pixels[row, column]
    figure = Figure(figsize=(0.6 * columns + 1, 0.6 * rows + 0.6), layout="constrained")
    axes = figure.subplots()
    axes.imshow(sheet.clip(0, 1), cmap="gray", vmin=0, vmax=1)
    axes.set_xticks([(width + gap) * i + width / 2 for i in range(len(column_labels))], column_labels)
    axes.set_yticks([(height + gap) * i + height / 2 for i in range(len(row_labels))], row_labels)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def traversal_grid(images: Tensor, kl: Tensor) -> Figure:
    """Images of :func:`ppvae.traversals`, (D, V, H, W) or (D, V, 3, H, W), the dimensions by falling KL, (D,) nats."""
    order = kl.argsort(descending=True).tolist()
    return image_grid(images[order], [f"z{d}  {kl[d]:.2f} nats" for d in order])


def _colours_last(images: Tensor) -> np.ndarray:
    """Images (rows, columns, H, W), or (rows, columns, 3, H, W) as (rows, columns, H, W, 3)."""
    if images.dim() not in (4, 5) or (images.dim() == 5 and images.shape[2] != 3):
        raise ValueError(f"expected images (rows, columns, H, W), or with 3 before H, got {tuple(images.shape)}")
    pixels = images.detach().cpu().float().numpy()
    return np.moveaxis(pixels, 2, -1) if pixels.ndim == 5 else pixels


def confusion(true: Tensor, predicted: Tensor, num_classes: int) -> Figure:
    """Counts of (true class, predicted class); the shade is the share of the true class."""
    counts = np.zeros((num_classes, num_classes), dtype=int)
    np.add.at(counts, (true.cpu().numpy(), predicted.cpu().numpy()), 1)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    figure = Figure(figsize=(0.5 * num_classes + 1, 0.5 * num_classes + 1), layout="constrained")
    axes = figure.subplots()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row in range(num_classes):
        for column in range(num_classes):
            if counts[row, column]:
                colour = "white" if share[row, column] > 0.5 else "black"
                axes.text(column, row, counts[row, column], ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(num_classes))
    axes.set_yticks(range(num_classes))
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    return figure


def latent_space(codes: Tensor, labels: Tensor) -> Figure:
    """The first two principal components of the codes (B, latent_dim), coloured by label."""
    from sklearn.decomposition import PCA

    pca = PCA(2)
    plane = pca.fit_transform(codes.detach().cpu().numpy())
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    points = axes.scatter(*plane.T, c=labels.cpu().numpy(), cmap="tab10", vmin=-0.5, vmax=9.5, s=5, linewidths=0)
    figure.colorbar(points, ax=axes, ticks=range(10), label="class")
    for axis, share, name in zip(
        (axes.xaxis, axes.yaxis), pca.explained_variance_ratio_, ("first", "second"), strict=True
    ):
        axis.set_label_text(f"{name} principal component ({share:.0%} of the variance)")
    return figure


def dots_with_errors(names: list[str], series: dict[str, tuple[list[float], list[float]]], label: str) -> Figure:
    """One row a name, one dot a series with a bar of one standard error each way."""
    figure = Figure(figsize=(6, 1.5 + 0.4 * len(names)), layout="constrained")
    axes = figure.subplots()
    for offset, (name, (values, errors)) in enumerate(series.items()):
        rows = [row + 0.15 * offset for row in range(len(names))]
        axes.errorbar(values, rows, xerr=errors, fmt="o", capsize=3, label=name)
    axes.set(yticks=range(len(names)), yticklabels=names, xlabel=label)
    axes.invert_yaxis()
    axes.axvline(0, color="0.8", zorder=0)
    figure.legend(loc="outside upper center", ncols=len(series))
    return figure


def stacked_bars(
    names: list[str], parts: dict[str, list[float]], label: str, errors: dict[str, list[float]] | None = None
) -> Figure:
    """One row a name, its parts end to end from 0; a bar of one standard error at each end, where there are any."""
    figure = Figure(figsize=(6, 1.5 + 0.4 * len(names)), layout="constrained")
    axes = figure.subplots()
    ends = np.zeros(len(names))
    for part, values in parts.items():
        axes.barh(names, values, left=ends, xerr=None if errors is None else errors[part], capsize=3, label=part)
        ends = ends + values
    axes.axvline(0, color="0.8", zorder=0)
    axes.set_xlabel(label)
    axes.invert_yaxis()
    figure.legend(loc="outside upper center", ncols=len(parts))
    return figure


def mutual_information_heatmap(information, factor_names: Sequence[str]) -> Figure:
    """I(z_d; v_k), nats, shape (D, F): a row for each dimension, a column for each ground-truth factor."""
    information = np.asarray(information)
    rows, columns = information.shape
    figure = Figure(figsize=(0.8 * columns + 2, 0.4 * rows + 1.2), layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(information, cmap="Blues", vmin=0, aspect="auto")
    for (row, column), value in np.ndenumerate(information):
        colour = "white" if value > 0.5 * information.max() else "black"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(columns), factor_names)
    axes.set_yticks(range(rows), [f"z{d}" for d in range(rows)])
    axes.xaxis.tick_top()
    figure.colorbar(picture, ax=axes, label="mutual information, nats")
    return figure


def curves(x: Sequence[float], series: dict[str, Sequence[float]], x_label: str, y_label: str) -> Figure:
    """One line a series over the same places."""
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    for name, values in series.items():
        axes.plot(x, values, marker="o", label=name)
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def animate(images: Tensor, path, scale: int = 1) -> None:
    """Write an animated GIF: the rows of images side by side, through their frames and back.

    Args:
        images: shape (rows, frames, H, W), or (rows, frames, 3, H, W) in colour, values in [0, 1].
        path: of the file.
        scale: pixels of the file to one of an image.

    A frame is shown for 150 ms. Equal ones that follow each other are written as one, shown for as long as all of them.
    """
    from PIL import Image

    pixels = np.rint(_colours_last(images).clip(0, 1) * 255).astype(np.uint8)
    strips = [np.concatenate(list(pixels[:, frame]), axis=1) for frame in range(pixels.shape[1])]
    frames = [Image.fromarray(strip.repeat(scale, 0).repeat(scale, 1)) for strip in strips]
    frames += frames[-2:0:-1]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=150, loop=0)


def scatter(points: dict[str, Sequence[Sequence[float]]], x_label: str, y_labels: Sequence[str]) -> Figure:
    """One panel for each y, one point for each (x, y, y, ...) of each name."""
    figure = Figure(figsize=(4.5 * len(y_labels), 3.8), layout="constrained")
    panels = figure.subplots(1, len(y_labels), squeeze=False)[0]
    for index, (panel, label) in enumerate(zip(panels, y_labels, strict=True)):
        for number, (name, rows) in enumerate(points.items()):
            place = [row[0] for row in rows], [row[1 + index] for row in rows]
            panel.scatter(*place, label=name, marker="osD^vPX*"[number // 10 % 8])
        panel.set(xlabel=x_label, ylabel=label)
        panel.grid(alpha=0.3)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper")
    return figure
