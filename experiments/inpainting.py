"""Inpainting: a pair trained on whole digits, and its guide trained again on masked ones.

Claim: a guide that was never shown masked images is a poor proposal for p(z | x_seen). Trained again on masked images
with the model held (``train_model=False``), it is close, and the model keeps the likelihood that it learned from whole
images. (With masks from the start, the model itself would learn from less.)

    log p(x_missing | x_seen) = log p(x) - log p(x_seen)

Both terms are estimated by ``ppvae.log_marginal``: Gaussians fitted to each posterior, with k-hat. The table also has
the unconditional log p(x_missing), which does not look at the seen pixels. Masks are drawn by a fixed seed: half of the
pixels at random, 80% at random, the lower half, and a box in the centre.

The gap of a guide is log p(x_seen) less its bound. Three guides are compared: the one trained on whole digits, the same
with missing pixels given as black, and the one trained again on masked digits.

    python experiments/inpainting.py
    python experiments/inpainting.py --data digits --images 100

A finished training is not repeated; an interrupted one is resumed. Writes to the run folder: a folder for each
training, report.json, gaps.png, and draws-KIND.png.
"""

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from guide_families import fit
from matplotlib.figure import Figure
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import ppvae
from ppvae import cli, plots
from ppvae.data import Dataset, load
from ppvae.evaluation.likelihood.pareto import MIN_WEIGHTS
from ppvae.evaluation.likelihood.per_datum import sampling_error
from ppvae.guides import MeanFieldGaussian
from ppvae.models import GaussianVAE
from ppvae.nn import MLP, FillMissing
from ppvae.training import resolve_device

KINDS = ("random 50%", "random 80%", "lower half", "centre box")
WHOLE, BLACK, MASKED = "whole digits", "whole, missing black", "masked digits"  # what a guide is trained on
DRAWS = 4  # in the figures


@dataclass(frozen=True)
class Config:
    """Settings of one run."""

    data: Literal["mnist", "digits"] = "mnist"
    latent_dim: int = 32
    hidden: tuple[int, ...] = (400, 400)
    epochs: int = 25
    """Of the pair, on whole digits."""
    guide_epochs: int = 10
    """Of the guide alone, on masked digits."""
    batch_size: int = 128
    images: int = 200
    """Test images."""
    particles: int = 1000
    shown: int = 8
    """Images in each figure of draws."""
    seed: int = 0
    device: str = "auto"
    out: Path = Path("runs/inpainting")


def main(config: Config) -> dict[str, Any]:
    if config.particles < MIN_WEIGHTS or config.images < 2:
        raise ValueError(
            f"expected at least {MIN_WEIGHTS} --particles for k-hat and 2 --images for a standard error, got "
            f"{config.particles} and {config.images}"
        )
    splits, device = load(config.data), resolve_device(config.device)
    train = splits.train.unlabelled()
    torch.manual_seed(config.seed)
    model, guide = pair(config, train.event_shape)
    fit(config, (model, guide), ppvae.ELBO(), train, "whole", config.epochs)
    masked = copy.deepcopy(guide)
    again = with_masks(train, config.seed)
    fit(config, (model, masked), ppvae.ELBO(), again, "masked", config.guide_epochs, train_model=False)
    guides = {WHOLE: guide, BLACK: MeanFieldGaussian(MissingAsBlack(guide.encoder)), MASKED: masked}
    x = splits.test.unlabelled().binarized(config.seed).rows(slice(0, config.images)).to(device)
    whole = ppvae.log_marginal(model, guide, x, num_particles=config.particles, seed=config.seed, progress=True)
    report: dict[str, Any] = {"log p(x)": numbers(whole)}
    for number, kind in enumerate(KINDS):
        missing = mask(kind, x.shape, config.seed + 1 + number).to(device)
        report[kind] = judged(config, model, guides, x, missing, whole)
        draws(config, model, guides, x, missing).savefig(config.out / f"draws-{kind.replace(' ', '-')}.png", dpi=120)
    (config.out / "report.json").write_text(json.dumps(report, indent=2, allow_nan=False) + "\n")
    picture(report).savefig(config.out / "gaps.png", dpi=120)
    print_tables(config, report)
    return report


def pair(config: Config, shape: tuple[int, ...]) -> tuple[GaussianVAE, MeanFieldGaussian]:
    decoder = MLP(config.latent_dim, config.hidden, shape)
    model = GaussianVAE(decoder, config.latent_dim, ppvae.likelihoods.Bernoulli(missing=True))
    return model, MeanFieldGaussian(FillMissing(MLP((2, *shape), config.hidden, 2 * config.latent_dim)))


class MissingAsBlack(nn.Module):
    """An encoder that is told that the missing pixels are black."""

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(x.nan_to_num(0.0))


def mask(kind: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """Which pixels of images (N, H, W) are missing, bool."""
    height, width = shape[1:]
    if kind.startswith("random"):
        share = float(kind.split()[1].rstrip("%")) / 100
        return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share
    missing = torch.zeros(shape, dtype=torch.bool)
    if kind == "lower half":
        missing[:, height // 2 :] = True
    else:
        missing[:, height // 4 : -(height // 4), width // 4 : -(width // 4)] = True
    return missing


def with_masks(data: Dataset, seed: int) -> Dataset:
    """The images, each with a mask of one of the kinds, at random; still binarized anew for each minibatch."""
    x = data.grey(slice(None))
    generator = torch.Generator().manual_seed(seed)
    kind_of = torch.randint(len(KINDS), (len(x),), generator=generator)
    for number, kind in enumerate(KINDS):
        rows = (kind_of == number).nonzero()[:, 0]
        missing = mask(kind, (len(rows), *x.shape[1:]), seed + 1000 + number)  # other masks than those of the test
        x[rows] = x[rows].masked_fill(missing.to(x.device), torch.nan)
    return Dataset(x, binarization=data.binarization, name=f"{data.name} masked")


def judged(
    config: Config, model: nn.Module, guides: dict[str, nn.Module], x: Tensor, missing: Tensor, whole: ppvae.LogMarginal
) -> dict[str, Any]:
    """The estimates of one kind of mask; in nats, means over the images."""
    common = {"num_particles": config.particles, "seed": config.seed, "progress": True}
    compared = ppvae.compare(model, guides, x.masked_fill(missing, torch.nan), **common)
    seen = compared.rows[MASKED].marginal
    alone = ppvae.log_marginal(model, guides[MASKED], x.masked_fill(~missing, torch.nan), **common)
    conditional = whole.value - seen.value
    error = (whole.standard_error.square() + seen.standard_error.square()).sum().sqrt().item() / len(x)
    return {
        "missing": missing.double().mean().item(),
        "log p(x_seen)": numbers(seen),
        "log p(x_missing)": numbers(alone),
        "log p(x_missing | x_seen)": {**mean_of(conditional), "simulation_error": error},
        "gained from x_seen": mean_of(conditional - alone.value),
        "guides": {name: judgement(row.marginal) for name, row in compared.rows.items()},
    }


def judgement(found: ppvae.LogMarginal) -> dict[str, Any]:
    """How far a guide's bounds are below log p(x_seen), and whether its weights could be trusted."""
    gaps = {name: mean_of(found.value - found.bound(k)) for name, k in (("gap", 1), ("gap_of_K", found.num_particles))}
    return {**gaps, "khat_bad": found.guide.khat_bad, "median_ess": found.guide.median_ess}


def numbers(found: ppvae.LogMarginal) -> dict[str, float]:
    return {**mean_of(found.value), "simulation_error": found.simulation_error, "khat_bad": found.khat_bad}


def mean_of(values: Tensor) -> dict[str, float]:
    """Mean over the images, and its standard error as a sample of all images."""
    return {"mean": values.mean().item(), "standard_error": sampling_error(values)}


def draws(config: Config, model: nn.Module, guides: dict[str, nn.Module], x: Tensor, missing: Tensor) -> Figure:
    """Images, what is seen of them (grey: missing), and imputations by the guide of whole and that of masked digits."""
    x, missing = x[: config.shown], missing[: config.shown]
    seen = x.masked_fill(missing, torch.nan)
    columns = {"whole": x, "seen": seen.nan_to_num(0.5)}
    for star, name in (("", MASKED), ("*", WHOLE)):
        found = ppvae.impute(
            model, guides[name], seen, num_samples=DRAWS, num_particles=config.particles, seed=config.seed
        )
        columns |= {f"draw {number}{star}": draw for number, draw in enumerate(found.samples, 1)}
        columns[f"mean{star}"] = found.mean
    figure = plots.image_grid(torch.stack(list(columns.values()), 1), column_labels=list(columns))
    figure.suptitle("guide trained on masked digits; *: on whole digits alone")
    return figure


def picture(report: dict[str, Any]) -> Figure:
    """How far the evidence bound of each guide is below log p(x_seen)."""
    gaps = {name: [report[kind]["guides"][name]["gap"] for kind in KINDS] for name in (WHOLE, BLACK, MASKED)}
    series = {
        name: tuple([gap[key] for gap in found] for key in ("mean", "standard_error")) for name, found in gaps.items()
    }
    return plots.dots_with_errors(KINDS, series, "ELBO below log p(x_seen), nats; bars: standard error over images")


def print_tables(config: Config, report: dict[str, Any]) -> None:
    whole = report["log p(x)"]
    title = (
        f"{config.data}, {config.images} images, nats ± standard error over images; log p(x) {cell(whole)}. "
        "Failed: share of images with a bad k-hat, of x / x_seen / x_missing"
    )
    columns = ("log p(x_seen)", "log p(x_missing | x_seen)", "log p(x_missing)", "gained from x_seen")
    table = Table("mask", "missing", *columns, "failed", title=title, box=SIMPLE)
    for kind in KINDS:
        found = report[kind]
        failed = [part["khat_bad"] for part in (whole, found["log p(x_seen)"], found["log p(x_missing)"])]
        cells = (cell(found[column]) for column in columns)
        table.add_row(kind, f"{found['missing']:.0%}", *cells, " / ".join(f"{share:.0%}" for share in failed))
    title = f"guides: bounds below log p(x_seen), nats ± standard error over images; K = {config.particles}"
    guides = Table(
        "mask", "guide trained on", "ELBO", "K-particle bound", "k-hat bad", "median ESS", title=title, box=SIMPLE
    )
    for kind in KINDS:
        for name, found in report[kind]["guides"].items():
            trust = (f"{found['khat_bad']:.0%}", f"{found['median_ess']:.1f}")
            guides.add_row(kind, name, cell(found["gap"]), cell(found["gap_of_K"]), *trust)
    Console().print(table, guides)


def cell(found: dict[str, float]) -> str:
    return f"{found['mean']:.2f} ± {found['standard_error']:.2f}"


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
