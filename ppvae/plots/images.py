"""Grids and animations of images."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor


def image_grid(images: Tensor, row_labels: Sequence[str] = (), column_labels: Sequence[str] = ()) -> Figure:
    """A grid of images.

    Args:
        images: shape (rows, columns, H, W), or (rows, columns, 3, H, W) in colour, values in [0, 1].
        row_labels: one for each row, or none.
        column_labels: one for each column, or none.

    Raises ValueError for another shape.

    Example:

        >>> import torch
        >>> from ppvae.plots import image_grid
        >>> image_grid(torch.rand(2, 3, 8, 8)).axes[0].images[0].get_array().shape
        (17, 26)
    """
    pixels = _channels_last(images)
    rows, columns, height, width, *channels = pixels.shape
    gap = 1
    sheet = np.ones((rows * (height + gap) - gap, columns * (width + gap) - gap, *channels))
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
    """Images of :func:`ppvae.traversals`, one row for each dimension, in the order of decreasing KL.

    Args:
        images: shape (D, V, H, W), or (D, V, 3, H, W) in colour.
        kl: of each dimension, shape (D,), nats.

    Example:

        >>> import torch
        >>> from ppvae.plots import traversal_grid
        >>> axes = traversal_grid(torch.rand(2, 5, 8, 8), torch.tensor([0.1, 3.0])).axes[0]
        >>> [label.get_text() for label in axes.get_yticklabels()]
        ['z1  3.00 nats', 'z0  0.10 nats']
    """
    order = kl.argsort(descending=True).tolist()
    return image_grid(images[order], [f"z{d}  {kl[d]:.2f} nats" for d in order])


def _channels_last(images: Tensor) -> np.ndarray:
    """Images (rows, columns, H, W), or (rows, columns, 3, H, W) as (rows, columns, H, W, 3)."""
    if images.dim() not in (4, 5) or (images.dim() == 5 and images.shape[2] != 3):
        raise ValueError(f"expected images (rows, columns, H, W), or with 3 before H, got {tuple(images.shape)}")
    pixels = images.detach().cpu().float().numpy()
    return np.moveaxis(pixels, 2, -1) if pixels.ndim == 5 else pixels


def animate(images: Tensor, path: str | Path, scale: int = 1) -> None:
    """Write an animated GIF that shows the rows of images side by side, forwards and then backwards.

    Args:
        images: shape (rows, frames, H, W), or (rows, frames, 3, H, W) in colour, values in [0, 1].
        path: of the file.
        scale: width and height of an image's pixel, in pixels of the file.

    Each frame lasts 150 ms. Equal frames in succession are written as one that lasts as long as all of them.

    Raises ValueError for another shape.

    Example:

        >>> import tempfile, torch
        >>> from PIL import Image
        >>> from ppvae.plots import animate
        >>> with tempfile.NamedTemporaryFile(suffix=".gif") as file:
        ...     animate(torch.rand(2, 3, 8, 8), file.name)
        ...     Image.open(file.name).n_frames
        4
    """
    from PIL import Image

    pixels = np.rint(_channels_last(images).clip(0, 1) * 255).astype(np.uint8)
    strips = [np.concatenate(list(pixels[:, frame]), axis=1) for frame in range(pixels.shape[1])]
    frames = [Image.fromarray(strip.repeat(scale, 0).repeat(scale, 1)) for strip in strips]
    frames += frames[-2:0:-1]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=150, loop=0)
