"""Figures of ssvae_mnist.py."""

from itertools import takewhile
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

import ppvae
from ppvae import plots
from ppvae.data import Dataset
from ppvae.evaluation import LogMarginal

BOUNDS_AT = (1, 10, 100, 1000, 10_000)  # particles


@torch.no_grad()
def save_figures(
    model,
    guide,
    test: Dataset,
    metrics: list[dict],
    marginal: LogMarginal,
    folder: Path,
    num_draws: int = 1,
) -> None:
    """Save all figures; predictions and codes are means over ``num_draws`` draws of the latents before them."""
    model.eval()
    x = test.most_probable(slice(None))
    predicted = ppvae.predict(guide, x, num_draws=num_draws).argmax(-1)
    codes = ppvae.features(guide, x, predicted, num_draws=num_draws)
    figures = {
        "learning_curves": plots.learning_curves(metrics),
        "bounds": bounds(marginal),
        "confusion": plots.confusion(test.y, predicted, model.num_classes),
        "latent_space": plots.latent_space(codes[:5000], test.y[:5000]),
        "reconstructions": plots.image_grid(
            torch.stack([x[:12], ppvae.reconstruct(model, guide, x[:12])]), ["data", "reconstruction"]
        ),
        "class_samples": class_samples(model, template=codes),
        "analogies": analogies(model, guide, x, test.y, num_draws),
    }
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=120)


def bounds(marginal: LogMarginal) -> Figure:
    """The guide's bounds at 1, 10, 100, ... particles, and log p(x)."""
    counts = [*takewhile(lambda k: k < marginal.num_particles, BOUNDS_AT), marginal.num_particles]
    of_guide = {k: marginal.bound(k) for k in counts}
    return plots.bounds(of_guide, marginal.value, marginal.simulation_error, name_of(marginal.is_reliable))


def name_of(is_reliable: bool) -> str:
    """What an estimate is, in words for tables and figures."""
    return "log p(x)" if is_reliable else "lower bound on log p(x)"


def with_every_class(model, z: Tensor, **others: Tensor) -> Tensor:
    """The mean images of styles z (N, latent_dim) with every class, shape (N, classes, H, W).

    ``others`` is the auxiliary variable a (N, auxiliary_dim). Without it a model that reads a takes its mean given z
    and y.
    """
    classes = torch.arange(model.num_classes, device=z.device)
    codes = {site: code.unsqueeze(1).expand(-1, len(classes), -1) for site, code in {"z": z, **others}.items()}
    return model.decode(y=classes.expand(len(z), -1), event_dim=2, **codes).mean


def class_samples(model, template: Tensor, styles: int = 8) -> Figure:
    """One style z ~ p(z) per row and one class per column."""
    z = torch.randn(styles, model.latent_dim, generator=torch.Generator().manual_seed(0)).to(template)
    columns = [str(label) for label in range(model.num_classes)]
    return plots.image_grid(with_every_class(model, z), [f"style {i + 1}" for i in range(styles)], columns)


def analogies(model, guide, x: Tensor, y: Tensor, num_draws: int) -> Figure:
    """The style of one test image per row, decoded with every class; with the image's a where x depends on it."""
    rows = torch.stack([(y == label).nonzero()[0, 0] for label in range(model.num_classes)])
    sites = ("z", "a") if getattr(model, "skip", False) else ("z",)
    codes = {site: ppvae.features(guide, x[rows], y[rows], site=site, num_draws=num_draws) for site in sites}
    images = torch.cat([x[rows, None], with_every_class(model, **codes)], 1)
    return plots.image_grid(images, (), ["data", *map(str, range(model.num_classes))])
