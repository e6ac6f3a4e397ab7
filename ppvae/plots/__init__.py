"""Figures of training, codes, images and comparisons. All functions but :func:`animate` return a ``Figure``."""

from ppvae.plots.codes import confusion, correlation_heatmaps, latent_plane, latent_space, mutual_information_heatmap
from ppvae.plots.images import animate, image_grid, traversal_grid
from ppvae.plots.learning import learning_curves
from ppvae.plots.manifold import interpolation, latent_manifold
from ppvae.plots.series import bounds, curves, dots_with_errors, scatter, stacked_bars

__all__ = [
    "animate",
    "bounds",
    "confusion",
    "correlation_heatmaps",
    "curves",
    "dots_with_errors",
    "image_grid",
    "interpolation",
    "latent_manifold",
    "latent_plane",
    "latent_space",
    "learning_curves",
    "mutual_information_heatmap",
    "scatter",
    "stacked_bars",
    "traversal_grid",
]
