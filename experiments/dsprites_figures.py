"""The figures of a run of ``factorvae_dsprites.py``."""

from pathlib import Path

import torch
from torch import Tensor
from total_correlations import recorded

import ppvae
from ppvae import plots
from ppvae.data import Dataset
from ppvae.evaluation.disentanglement import Disentanglement


def save_figures(model, guide, data: Dataset, found: Disentanglement, folder: Path) -> None:
    save_images(model, guide, data, found.representation.kl, folder)
    found.plot().savefig(folder / "information.png", dpi=120)
    rows = recorded(folder)
    if rows:
        names = {"total_correlation": "exact, all data", "critic": "by the critic"}
        series = {label: [row[name] for row in rows] for name, label in names.items() if name in rows[0]}
        figure = plots.curves([row["step"] for row in rows], series, "step", "total correlation, nats")
        figure.savefig(folder / "total_correlation.png", dpi=120)


def save_images(model, guide, data: Dataset, kl: Tensor, folder: Path) -> None:
    """Traversals in the order of decreasing KL of the dimensions, and reconstructions."""
    heart = data.factors.index(torch.tensor([[2 * size // 3 for size in data.factors.sizes]]))
    traversed = ppvae.traversals(model, guide, data.rows(heart)).cpu()
    plots.traversal_grid(traversed, kl).savefig(folder / "traversals.png", dpi=120)
    plots.animate(traversed[kl.argsort(descending=True)], folder / "traversals.gif")
    x = data.rows(torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:10])
    rows = torch.stack([x, ppvae.reconstruct(model, guide, x).cpu()])
    plots.image_grid(rows, ["image", "reconstruction"]).savefig(folder / "reconstructions.png", dpi=120)
