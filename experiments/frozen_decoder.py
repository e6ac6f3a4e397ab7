"""One frozen decoder, many guides: which inference is better, and why?

Claim: with the decoder fixed, log p(x) is the same for every guide, so differences between their bounds are due to
inference alone (Cremer, Li and Duvenaud 2018, "Inference Suboptimality in Variational Autoencoders"). The best bounds
of nested families are ordered: a full-rank Gaussian and each of the flows contain the mean-field Gaussian, so none of
them should do worse than it. The refined guide, which starts from the mean-field posterior of each datum and improves
it, should recover part of the loss from amortization.

The decoder is trained with an importance-weighted bound, under which its posteriors can differ more from a mean-field
Gaussian than under the ELBO. Every guide is then trained with the same ELBO, from the same seed, for the same number of
steps.

    python experiments/frozen_decoder.py
    python experiments/frozen_decoder.py --guides mean-field planar --gap-images 0

log p(x) is estimated once for all guides, by weights of a Gaussian that is fitted to the posterior of each image,
starting from the guide with the highest bound. On the images of the gaps annealed importance sampling is the check.

A finished training is not repeated; an interrupted one is resumed. Writes to the run folder: a folder for each
training, comparison.json, gaps.json, comparison.png, gaps.png.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from guide_families import FAMILIES, decoder, fit
from matplotlib.figure import Figure
from rich.console import Console

import ppvae
from ppvae import cli, plots
from ppvae.data import Dataset, load
from ppvae.evaluation import Annealing, Ascent
from ppvae.guides import Refined
from ppvae.training import environment, resolve_device

Name = Literal["mean-field", "refined", "full-rank", "planar", "IAF", "spline"]


@dataclass(frozen=True)
class Config:
    """Settings of one run."""

    data: Literal["mnist", "digits"] = "mnist"
    guides: tuple[Name, ...] = ("mean-field", "refined", "full-rank", "planar", "IAF", "spline")
    latent_dim: int = 50
    hidden: tuple[int, ...] = (200, 200)
    context: int = 50
    """Features of x that the maps of a flow read."""
    decoder_particles: int = 5
    """k of the importance-weighted bound that trains the decoder."""
    decoder_epochs: int = 10
    guide_epochs: int = 10
    batch_size: int = 100
    refined_steps: int = 50
    images: int = 1000
    """Test images for the comparison."""
    particles: int = 1000
    gap_images: int = 100
    """Test images for the gaps and for log p(x) by annealing; 0 skips both."""
    gap_windows: int = 30
    """Maximum number of steps to a local optimum, in hundreds."""
    temperatures: int = 500
    seed: int = 0
    device: str = "auto"
    out: Path = Path("runs/frozen-decoder")


def main(config: Config) -> ppvae.Comparison:
    console, device = Console(), resolve_device(config.device)
    splits = load(config.data)
    train, test = splits.train.unlabelled(), splits.test.unlabelled().binarized(config.seed)
    torch.manual_seed(config.seed)
    model, first = decoder(config, train.event_shape), FAMILIES["mean-field"](config, train.event_shape)
    fit(config, (model, first), ppvae.IWAE(config.decoder_particles), train, "decoder", config.decoder_epochs)
    guides = {name: trained(config, model, name, train) for name in config.guides}
    x = test.rows(slice(0, config.images)).to(device)
    common = {"num_particles": config.particles, "seed": config.seed, "progress": True}
    comparison = ppvae.compare(model, guides, x, **common)
    save(config, comparison, "comparison", comparison.plot())
    if config.gap_images:
        closer = ppvae.compare(
            model,
            guides,
            x[: config.gap_images],
            annealing=Annealing(config.temperatures),
            ascent=Ascent(learning_rate=0.01, patience=5, max_windows=config.gap_windows),
            **common,
        )
        save(config, closer, "gaps", gap_figure(closer))
    console.print(", ".join(f"{key} {value}" for key, value in environment(device).items()))
    console.print(f"tables and figures in {config.out}")
    return comparison


def trained(config: Config, model, name: Name, data: Dataset) -> ppvae.AmortizedGuide:
    """The guide of that name, trained with the ELBO of the frozen model. The KL is sampled for all families alike."""
    family = "mean-field" if name == "refined" else name
    torch.manual_seed(config.seed)
    guide = FAMILIES[family](config, data.event_shape)
    objective = ppvae.ELBO(analytic_kl=False)
    fit(config, (model, guide), objective, data, family, config.guide_epochs, train_model=False)
    return Refined(guide, model, config.refined_steps) if name == "refined" else guide


def save(config: Config, comparison: ppvae.Comparison, name: str, figure: Figure) -> None:
    comparison.print()
    comparison.save(config.out / f"{name}.json")
    figure.savefig(config.out / f"{name}.png", dpi=120)


def gap_figure(comparison: ppvae.Comparison) -> Figure:
    """The distance of each guide's bound from log p(x), split into approximation and amortization gap."""
    found = {
        f"{part} gap": [getattr(row.gaps, part) for row in comparison.rows.values()]
        for part in ("approximation", "amortization")
    }
    means = {part: [gap.mean for gap in gaps] for part, gaps in found.items()}
    errors = {part: [gap.simulation_error for gap in gaps] for part, gaps in found.items()}
    bound = any(record["log_p_is_lower_bound"] for record in comparison.records().values())
    label = f"nats below {'a lower bound on ' * bound}log p(x)"
    return plots.stacked_bars(list(comparison.rows), means, label, errors)


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
