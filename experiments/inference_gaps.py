"""What does inference lose: by the family of q, or by amortization?

Claim: Cremer, Li and Duvenaud 2018 ("Inference Suboptimality in Variational Autoencoders", MNIST): with a factorised
Gaussian guide the two gaps are of equal size. A decoder that is trained with a flow guide has posteriors that a
Gaussian fits far worse, since a decoder adapts to the guide of its training. The published values are noted from
memory; check them before quoting them.

    log p(x)  -  L[q*]  =  approximation gap,      L[q*]  -  L[q]  =  amortization gap

log p(x) is estimated once for each decoder, by weights of a Gaussian that is fitted to the posterior of each image; the
comparison that is printed at the end has annealed importance sampling as a check.

Shortened: 20 epochs, and at most 3,000 steps to a local optimum. The flow is inverse autoregressive (in the paper, a
flow with auxiliary variables). Its maps are amortized; the features of x that the maps read are optimised for each
datum.

    python experiments/inference_gaps.py

Writes to the run folder: a folder for each training, report.json, gaps.png.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from guide_families import FAMILIES, decoder, fit
from matplotlib.figure import Figure
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

import ppvae
from ppvae import cli, plots
from ppvae.data import load
from ppvae.evaluation import Annealing, Ascent
from ppvae.training import environment, resolve_device

PUBLISHED = {  # nats on MNIST, for the pair with a Gaussian and the pair with a flow guide; noted from memory
    "log p(x)": (-89.80, -88.94),
    "best flow": (-90.80, -90.38),
    "best Gaussian": (-91.23, -113.54),
    "amortized": (-92.57, -91.79),
    "approximation gap": (1.43, 1.44),
    "amortization gap": (1.34, 1.41),
}
PARTS = ("approximation", "amortization")
OBJECTIVE = ppvae.ELBO(analytic_kl=False)  # a closed-form KL, for the Gaussian alone, would favour that guide


@dataclass(frozen=True)
class Config:
    """Settings of one run."""

    data: Literal["mnist", "digits"] = "mnist"
    latent_dim: int = 50
    hidden: tuple[int, ...] = (200, 200)
    context: int = 50
    epochs: int = 20
    batch_size: int = 100
    images: int = 100
    """Test images. The paper uses 100 training and 100 validation images."""
    particles: int = 1000
    temperatures: int = 500
    gap_windows: int = 30
    """Maximum number of steps to a local optimum, in hundreds."""
    seed: int = 0
    device: str = "auto"
    out: Path = Path("runs/inference-gaps")


def main(config: Config) -> dict:
    splits = load(config.data)
    train = splits.train.unlabelled()
    x = splits.test.unlabelled().binarized(config.seed).rows(slice(0, config.images))
    found = {
        "Gaussian": compared(config, "mean-field", "IAF", train, x),
        "flow": compared(config, "IAF", "mean-field", train, x),
    }
    report = {
        name: summary(result, own="mean-field" if name == "Gaussian" else "IAF") for name, result in found.items()
    }
    (config.out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    picture(config, report).savefig(config.out / "gaps.png", dpi=120)
    print_table(config, report)
    for result in found.values():
        result.print()
    Console().print(", ".join(f"{k} {v}" for k, v in environment(resolve_device(config.device)).items()))
    return report


def compared(config: Config, own: str, other: str, train, x) -> ppvae.Comparison:
    """A decoder trained jointly with the guide ``own`` and then frozen, to train the guide ``other`` on it."""
    torch.manual_seed(config.seed)
    model = decoder(config, train.event_shape)
    guides = {family: FAMILIES[family](config, train.event_shape) for family in (own, other)}
    fit(config, (model, guides[own]), OBJECTIVE, train, f"with-{own}", config.epochs)
    then = f"with-{own}-then-{other}"
    fit(config, (model, guides[other]), OBJECTIVE, train, then, config.epochs, train_model=False)
    return ppvae.compare(
        model,
        guides,
        x.to(resolve_device(config.device)),
        num_particles=config.particles,
        annealing=Annealing(config.temperatures),
        ascent=Ascent(learning_rate=0.01, patience=5, max_windows=config.gap_windows),
        seed=config.seed,
        progress=True,
    )


def summary(result: ppvae.Comparison, own: str) -> dict:
    """The quantities that the paper reports, each with its mean and its standard error over the data, in nats; and
    whether log p(x) is a lower bound, with the share of the images for which it is."""
    mine, flow, gaussian = (result.rows[name].gaps for name in (own, "IAF", "mean-field"))
    quantities = {
        "log p(x)": mine.log_p,
        "best flow": flow.local,
        "best Gaussian": gaussian.local,
        "amortized": mine.amortized,
        "approximation gap": mine.approximation,
        "amortization gap": mine.amortization,
    }
    record = result.records()[own]
    return {
        **{name: (bound.mean, bound.sampling_error) for name, bound in quantities.items()},
        **{key: record[key] for key in ("log_p_failed", "log_p_is_lower_bound")},
    }


def print_table(config: Config, report: dict) -> None:
    title = (
        f"{config.data}, {config.images} images, {config.epochs} epochs; nats ± standard error over images. Columns: "
        "the guide of the training. log p(x) by Gaussians fitted to the posterior of each image; failed: images with a "
        "bad k-hat; ≥: lower bound, since more than 5% failed"
    )
    heads = [head for name in report for head in (name, "published, from memory")]
    table = Table("", *heads, title=title, box=SIMPLE)
    for quantity, published in PUBLISHED.items():
        cells = []
        for name, theirs in zip(report, published, strict=True):
            mean, error = report[name][quantity]
            mark = "≥ " * (quantity == "log p(x)" and report[name]["log_p_is_lower_bound"])
            cells += [f"{mark}{mean:.2f} ± {error:.2f}", f"{theirs:.2f}" if config.data == "mnist" else ""]
        table.add_row(quantity, *cells)
    shares = [found["log_p_failed"] for found in report.values()]
    table.add_row(
        "log p(x), failed", *(cell for share in shares for cell in ("" if share is None else f"{share:.0%}", ""))
    )
    Console().print(table)


def picture(config: Config, report: dict) -> Figure:
    """The two gaps of each pair, and the published gaps."""
    rows = {f"{name} guide": [found[f"{part} gap"][0] for part in PARTS] for name, found in report.items()}
    if config.data == "mnist":
        for column, name in enumerate(report):
            rows[f"{name} guide, published"] = [PUBLISHED[f"{part} gap"][column] for part in PARTS]
    parts = {f"{part} gap": [gaps[i] for gaps in rows.values()] for i, part in enumerate(PARTS)}
    return plots.stacked_bars(list(rows), parts, "nats below log p(x)")


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
