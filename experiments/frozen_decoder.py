"""One frozen decoder, many guides: which inference is better, and why?

Claim: with the decoder held fixed log p(x) is the same number for every guide, so what separates their bounds is
inference alone (Cremer, Li and Duvenaud 2018, "Inference Suboptimality in Variational Autoencoders"). Theory orders
the best bounds of families that hold one another: a full-rank Gaussian and each of the flows can be a mean-field
Gaussian, so none of them should lose to it; and the refined guide, which climbs from the mean-field answer, should
win back some of what amortization cost.

The decoder is trained with an importance-weighted bound, which leaves its posteriors freer to differ from a mean-field
Gaussian than the ELBO does; every guide then learns by the same ELBO, from the same seed, for the same number of steps.

    python experiments/frozen_decoder.py
    python experiments/frozen_decoder.py --guides mean-field planar --gap-images 0

Trainings that are finished are not run again, and one that was stopped is taken up. Writes to the run folder: a folder
for each training, comparison.json, gaps.json, comparison.png, gaps.png.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from matplotlib.figure import Figure
from ppvae.guides import (
    FlowGuide,
    FullRankGaussian,
    MeanFieldGaussian,
    Refined,
    inverse_autoregressive,
    neural_spline,
    planar,
)
from ppvae.models import GaussianVAE
from rich.console import Console
from torch import nn

import ppvae
from ppvae import cli, plots
from ppvae.data import Dataset, load
from ppvae.nn import MLP
from ppvae.training import environment, resolve_device
from ppvae.training.study import started

Name = Literal["mean-field", "refined", "full-rank", "planar", "IAF", "spline"]


@dataclass(frozen=True)
class Config:
    """Settings of one run."""

    data: Literal["mnist", "digits"] = "mnist"
    guides: tuple[Name, ...] = ("mean-field", "refined", "full-rank", "planar", "IAF", "spline")
    latent_dim: int = 50
    hidden: tuple[int, ...] = (200, 200)
    context: int = 50
    """Features of x that the flows' maps see."""
    decoder_particles: int = 5
    """k of the importance-weighted bound that trains the decoder."""
    decoder_epochs: int = 10
    guide_epochs: int = 10
    batch_size: int = 100
    refined_steps: int = 50
    images: int = 1000
    """Test images that are compared."""
    particles: int = 1000
    gap_images: int = 100
    """Test images whose gaps and whose log p(x) by annealing are estimated; 0 leaves both out."""
    gap_windows: int = 30
    """Hundreds of steps to the local optima, at most."""
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
    fit(config, model, first, ppvae.IWAE(config.decoder_particles), train, "decoder", config.decoder_epochs)
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
            ais_settings={"temperatures": config.temperatures},
            gap_settings={"learning_rate": 0.01, "patience": 5, "max_windows": config.gap_windows},
            **common,
        )
        save(config, closer, "gaps", gap_figure(closer))
    console.print(", ".join(f"{key} {value}" for key, value in environment(device).items()))
    console.print(f"tables and figures in {config.out}")
    return comparison


def fit(config, model, guide, objective, data: Dataset, name: str, epochs: int, train_model: bool = True) -> None:
    """Train in the folder of that name; take up or leave alone what stands there."""
    steps = epochs * (len(data) // config.batch_size)
    Console().print(name)
    ppvae.fit(
        model,
        guide,
        objective,
        data,
        epochs=epochs,
        batch_size=config.batch_size,
        schedule=lambda step: 1 - step / steps,  # to 0, so that no guide is judged by the noise of its last steps
        train_model=train_model,
        run_dir=config.out / name,
        resume=started(config.out / name),
        device=config.device,
        seed=config.seed,
    )


def trained(config: Config, model, name: Name, data: Dataset) -> ppvae.AmortizedGuide:
    """The guide of that name, taught by the ELBO of the frozen model, its KL sampled for all of them alike."""
    family = "mean-field" if name == "refined" else name
    torch.manual_seed(config.seed)
    guide = FAMILIES[family](config, data.event_shape)
    fit(config, model, guide, ppvae.ELBO(analytic_kl=False), data, family, config.guide_epochs, train_model=False)
    return Refined(guide, model, config.refined_steps) if name == "refined" else guide


def decoder(config, shape: tuple[int, ...]) -> GaussianVAE:
    return GaussianVAE(MLP(config.latent_dim, config.hidden, shape), config.latent_dim)


def encoder(config, shape: tuple[int, ...], features: int) -> nn.Module:
    return MLP(shape, config.hidden, features)


def flow(maps: Callable) -> Callable:
    def guide(config, shape: tuple[int, ...]) -> FlowGuide:
        features = 2 * config.latent_dim + config.context
        return FlowGuide(encoder(config, shape, features), maps(config.latent_dim, config.context), config.latent_dim)

    return guide


FAMILIES: dict[str, Callable] = {
    "mean-field": lambda config, shape: MeanFieldGaussian(encoder(config, shape, 2 * config.latent_dim)),
    "full-rank": lambda config, shape: FullRankGaussian(
        encoder(config, shape, FullRankGaussian.num_features(config.latent_dim)), config.latent_dim
    ),
    "planar": flow(planar),
    "IAF": flow(inverse_autoregressive),
    "spline": flow(neural_spline),
}


def save(config: Config, comparison: ppvae.Comparison, name: str, figure: Figure) -> None:
    comparison.print()
    comparison.save(config.out / f"{name}.json")
    figure.savefig(config.out / f"{name}.png", dpi=120)


def gap_figure(comparison: ppvae.Comparison) -> Figure:
    """Each guide's loss against log p(x), split into what its family and what amortization costs."""
    found = {
        f"{part} gap": [getattr(row.gaps, part) for row in comparison.rows.values()]
        for part in ("approximation", "amortization")
    }
    means = {part: [gap.mean for gap in gaps] for part, gaps in found.items()}
    errors = {part: [gap.mean_standard_error for gap in gaps] for part, gaps in found.items()}
    return plots.stacked_bars(list(comparison.rows), means, "nats below log p(x)", errors)


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
