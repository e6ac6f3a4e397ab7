"""Figures of infogan.py: samples of each class, codes varied one at a time, and the course of training."""

from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ppvae import plots
from ppvae.engine.isolation import forked_randomness
from ppvae.models import ImplicitModel

COLUMNS = 10  # images in a row
CLASSES = 3  # of which codes are varied


@torch.no_grad()
def save_figures(config, model: ImplicitModel, labels: list[int], information: dict[str, list], folder: Path) -> None:
    """Write samples.png and codes.png, where the generator has such codes, and information.png.

    Args:
        config: of infogan.py.
        model: in evaluation mode here.
        labels: that the values of the categorical code are read as, -1 for none.
        information: the bound of each code's mutual information after each epoch, in nats, and "step".
        folder: of the run.
    """
    device = next(model.parameters()).device
    model = model.eval()
    with forked_randomness(device, 0):
        noise = torch.randn(COLUMNS, config.noise, device=device)
    title = f"{config.data}, {config.gan}, {config.steps:,} steps"
    if config.classes:
        figure = samples_figure(config, model, noise, labels)
        figure.suptitle(f"{title}: a row for each class c, a column for each draw of the noise", fontsize=9)
        figure.savefig(folder / "samples.png", dpi=120)
    if config.codes:
        figure = codes_figure(config, model, noise[0])
        figure.suptitle(f"{title}: one code from -1 to 1, the others 0, the same noise", fontsize=9)
        figure.savefig(folder / "codes.png", dpi=120)
    steps, series = information["step"], {name: values for name, values in information.items() if name != "step"}
    figure = plots.curves(steps, series, "step", "bound of the mutual information, nats")
    figure.savefig(folder / "information.png", dpi=120)


def samples_figure(config, model: ImplicitModel, noise: Tensor, labels: list[int]) -> Figure:
    """Images of each class and each draw of the noise, with the continuous codes at 0."""
    latents = {"c": torch.arange(config.classes, device=noise.device).unsqueeze(1), "noise": noise}
    if config.codes:
        latents["k"] = noise.new_zeros(config.codes)
    names = [f"c = {c}" + (f", read as {label}" if label >= 0 else "") for c, label in enumerate(labels)]
    return plots.image_grid(model.generate(**latents), names)


def codes_figure(config, model: ImplicitModel, noise: Tensor) -> Figure:
    """Images with one code varied at a time, for the first classes."""
    values = torch.linspace(-1, 1, COLUMNS, device=noise.device)
    codes = torch.eye(config.codes, device=noise.device).unsqueeze(1) * values.unsqueeze(1)  # (codes, columns, codes)
    names = [f"k{d}" for d in range(config.codes)]
    columns = [f"{value:.1f}" for value in values.tolist()]
    if not config.classes:
        return plots.image_grid(model.generate(k=codes, noise=noise), names, columns)
    classes = torch.arange(min(CLASSES, config.classes), device=noise.device)
    images = model.generate(c=classes.reshape(-1, 1, 1), k=codes, noise=noise)
    return plots.image_grid(images.flatten(0, 1), [f"c = {c}, {k}" for c in classes.tolist() for k in names], columns)
