"""Autoencoders, PCA, and VAEs with the same networks: how well a code of each width reconstructs.

Claim: Hinton and Salakhutdinov 2006 ("Reducing the Dimensionality of Data with Neural Networks"): a deep autoencoder
reconstructs better than as many principal components. The table has the squared error of a test image, summed over
pixels in [0, 1], by the width of the code: of PCA (exact, from the closed form of probabilistic PCA), of an autoencoder
with one and with three hidden layers, and of the same networks as VAE and beta-VAE (beta 0, 1 and 4, Gaussian noise of
a learned scale), reconstructed from the posterior mean. Each element of a code costs a VAE KL(q || p), so that its
error stops falling at some width; its rate in nats is printed in brackets.

Every network is a linear map plus a deep network, and every pair starts as probabilistic PCA of the training images:
the table says what the deep networks add to it. With --start random they are deep networks alone, from random weights.

Figures:

    samples           from N(0, I), and from densities fitted to the codes of training images (ex-post density
                      estimation), of an autoencoder, a regularised autoencoder (RAE; Ghosh et al. 2020) and a VAE. The
                      codes of an autoencoder do not follow N(0, I), and draws of it decode to no digit.
    denoised          images with half of the pixels hidden, as two autoencoders restore them
    filters           weights of one layer of units: without a penalty, denoising, sparse (KL, L1), contractive
    manifold-*        the images of a grid of codes of two elements
    codes-*           the codes of test images in the same plane, by class
    interpolation-*   straight and spherical paths between the codes of test images

    python experiments/autoencoders.py                            # 48 runs of 15 to 40 s each, on one CPU core
    python experiments/autoencoders.py --widths 2 16 --depths 3 --kinds autoencoder "beta 1"
    python experiments/autoencoders.py --start random --hidden 1000 500 250 --out runs/autoencoders-random
    python experiments/autoencoders.py --seeds 0 1 2 3 4

A finished run is not trained again; an interrupted one is resumed. Writes to runs/autoencoders/DATA: a folder for each
run, table.json, errors.png, figures/.
"""

import json
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Literal

from autoencoder_figures import save_figures
from autoencoder_pairs import RECIPES, name_of, networks_of, pca_errors, squared_error, trained
from rich.console import Console
from rich.table import Table

import ppvae
from ppvae import cli, plots
from ppvae.data import Splits, load
from ppvae.training import environment, resolve_device
from ppvae.training.study import finished, reports, write_report

Kind = Literal["autoencoder", "beta 0", "beta 1", "beta 4"]
TICKS = (1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 40, 50, 70, 100)  # of errors
SHARED = (
    "data",
    "start",
    "hidden",
    "bfloat16",
    "epochs",
    "batch_size",
    "learning_rate",
)  # settings of all runs of a table
OWN = ("kind", "depth", "width", "seed")  # settings in which the runs of a table differ


@dataclass(frozen=True)
class Config:
    """Settings of the table and of the figures."""

    data: Literal["mnist", "fashion_mnist", "digits"] = "mnist"
    widths: tuple[int, ...] = (2, 8, 16, 32, 64, 128)
    """Lengths of the code."""
    depths: tuple[int, ...] = (1, 3)
    """Numbers of hidden layers of the encoder, and of the decoder."""
    kinds: tuple[Kind, ...] = ("autoencoder", "beta 0", "beta 1", "beta 4")
    seeds: tuple[int, ...] = (0,)
    start: Literal["PCA", "random"] = "PCA"
    """Of the networks: linear shortcuts and the weights of probabilistic PCA, or deep networks alone."""
    hidden: tuple[int, ...] = (512, 512, 512)
    """Units of the encoder's layers, from x on; a depth takes the first of them."""
    bfloat16: bool = True
    """Multiply in bfloat16 in the deep networks: faster on processors with such instructions."""
    epochs: int = 4
    batch_size: int = 250
    learning_rate: float = 1e-3
    """Initial value; it falls to 0 on a half cosine."""
    figures: bool = True
    """Train the pairs of the figures (eleven, some of them in the table) and draw them."""
    figure_width: int = 16
    """Length of the code of samples, denoising and interpolation."""
    filter_units: int = 400
    """Units of the layer of filters."""
    filter_epochs: int = 6
    """Of the layer of filters, at 100 images a step."""
    device: str = "auto"
    out: Path = Path("runs/autoencoders")


def main(config: Config) -> list[dict]:
    check(config)
    splits, out = load(config.data, binarization="none"), config.out / config.data
    splits = replace(splits, train=splits.train.unlabelled())
    train, test = (part.grey(slice(None)) for part in (splits.train, splits.test))
    if max(config.widths) >= train[0].numel():
        raise ValueError(f"expected --widths below {train[0].numel()}, the pixels of an image, got {config.widths}")
    pca = pca_errors(train, test, sorted(set(config.widths)))
    for seed, kind, depth, width in product(config.seeds, config.kinds, config.depths, config.widths):
        run(config, splits, {"kind": kind, "depth": depth, "width": width, "seed": seed})
    found = [one for one in reports(out, shared(config)) if all(one[key] in getattr(config, f"{key}s") for key in OWN)]
    table = summary(config, found, pca)
    (out / "table.json").write_text(json.dumps(table, indent=2, allow_nan=False) + "\n")
    errors_figure(config, table).savefig(out / "errors.png", dpi=120)
    print_table(config, table)
    if config.figures:
        save_figures(config, splits)
    return table


def check(config: Config) -> None:
    for name in ("widths", "depths", "kinds", "seeds"):
        if not getattr(config, name):
            raise ValueError(f"expected --{name} with at least one value, got none")
    if min(config.depths) < 1 or max(config.depths) > len(config.hidden):
        raise ValueError(
            f"expected --depths from 1 to {len(config.hidden)}, the number of layers in --hidden, got {config.depths}"
        )


def shared(config: Config) -> dict:
    """The settings that all runs of one table have in common."""
    return {name: asdict(config)[name] for name in SHARED}


def run(config: Config, splits: Splits, own: dict) -> None:
    """Train and score one pair, unless that is done."""
    folder = config.out / config.data / name_of(**own)
    if finished(folder, {**shared(config), **own}):
        return
    Console().print(f"run folder {folder}")
    device, networks = resolve_device(config.device), networks_of(config, splits.train, own["depth"], own["width"])
    model, guide = trained(config, RECIPES[own["kind"]], networks, splits.train, name_of(**own), own["seed"])
    x = splits.test.grey(slice(None)).to(device)
    rate = None
    if own["kind"] != "autoencoder":
        rate = ppvae.evaluate_parts(ppvae.ELBO(), model, guide, x)["rate/z"]
    report = {**shared(config), **own, "error": squared_error(model, guide, x), "rate": rate}
    write_report(folder, report | environment(device))


def summary(config: Config, found: list[dict], pca: dict[int, float]) -> list[dict]:
    """One row for each width, kind and depth: mean error and rate with their deviations over seeds."""
    rows = [{"width": width, "kind": "PCA", "error": error} for width, error in pca.items()]
    for depth, kind, width in product(config.depths, config.kinds, config.widths):
        group = [r for r in found if (r["kind"], r["depth"], r["width"]) == (kind, depth, width)]
        errors, rates = ([report[key] for report in group] for key in ("error", "rate"))
        rows.append(
            {
                "width": width,
                "kind": kind,
                "depth": depth,
                "seeds": [report["seed"] for report in group],
                "error": mean(errors),
                "error_deviation": stdev(errors) if len(errors) > 1 else None,
                "rate": None if None in rates else mean(rates),
            }
        )
    return rows


def errors_figure(config: Config, table: list[dict]):
    """Error against width, one line for each kind and depth."""
    series: dict[str, list[float]] = {}
    for width in sorted(config.widths):
        for row in table:
            if row["width"] == width:
                series.setdefault(label(row), []).append(row["error"])
    figure = plots.curves(sorted(config.widths), series, "elements of the code", "squared error of a test image")
    figure.set_size_inches(8, 5)
    axes = figure.axes[0]
    axes.set(xscale="log", yscale="log")
    lowest, highest = axes.get_ylim()
    for set_ticks, ticks in (
        (axes.set_xticks, sorted(config.widths)),
        (axes.set_yticks, [tick for tick in TICKS if lowest <= tick <= highest]),
    ):
        set_ticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    return figure


def label(row: dict) -> str:
    return row["kind"] if row["kind"] == "PCA" else f"{row['kind']}, depth {row['depth']}"


def print_table(config: Config, table: list[dict]) -> None:
    title = f"{config.data}, {config.epochs} epochs, seeds {config.seeds}: squared error of a test image"
    title += ", mean ± deviation over seeds; rate in nats in brackets"
    shown = Table("", *(str(width) for width in config.widths), title=title)
    for name in dict.fromkeys(map(label, table)):
        rows = {row["width"]: row for row in table if label(row) == name}
        shown.add_row(name, *(cell(rows[width]) for width in config.widths))
    Console().print(shown)


def cell(row: dict) -> str:
    deviation = "" if row.get("error_deviation") is None else f" ± {row['error_deviation']:.2f}"
    rate = "" if row.get("rate") is None else f" ({row['rate']:.1f})"
    return f"{row['error']:.2f}{deviation}{rate}"


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
