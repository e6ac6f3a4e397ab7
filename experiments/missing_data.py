"""Imputation of missing elements by a variational autoencoder that is trained on incomplete data alone.

Claim: trained by the importance-weighted bound of the observed elements, and imputing by self-normalised importance
sampling, a deep latent variable model has a lower error than linear methods (Mattei and Frellsen 2019, "MIWAE: Deep
Generative Modelling and Imputation of Incomplete Data Sets", tables 1 and 2).

    log p(x_observed) >= E log 1/K sum_k p(x_observed, z_k) / q(z_k | x_observed)

Half of the elements are missing, completely at random. Every method sees the observed elements alone; there is no
complete row for training. MIWAE is compared with the mean of each feature; probabilistic PCA by EM, exact for missing
data, with a number of components chosen on held-out observed elements; scikit-learn's IterativeImputer (Bayesian ridge
regression of each feature on all others). Features of the tables have mean 0 and standard deviation 1 over their
observed elements; pixels are between 0 and 1. The settings of MIWAE were chosen by the error on seed 0 of each data
set, which is not among the seeds of the table.

    python experiments/missing_data.py
    python experiments/missing_data.py --data wine --seeds 1

A finished run is not repeated. Writes to the run folder: a folder for each run with report.json, and for the digits
imputed.png; table.json and rmse.png.
"""

import json
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal

import probabilistic_pca
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from schedules import half_cosine, steps_of
from sklearn import datasets
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401 (scikit-learn's own way to make the next import)
from sklearn.impute import IterativeImputer
from torch import Tensor

import ppvae
from ppvae import cli, plots
from ppvae.evaluation.likelihood.pareto import MIN_WEIGHTS
from ppvae.guides import MeanFieldGaussian
from ppvae.models import GaussianVAE
from ppvae.nn import MLP, FillMissing
from ppvae.training.study import finished, reports, write_report

Name = Literal["digits", "breast_cancer", "wine"]
HELD_OUT = 0.2  # of the observed elements, to choose the number of components
SHOWN, SHOWN_DRAWS = 8, 4
OURS, OTHERS = "MIWAE", ("mean", "PPCA", "iterative")


@dataclass(frozen=True)
class Recipe:
    """The pair of a data set, its training, and the numbers of components from which PCA's is chosen."""

    latent_dim: int
    hidden: tuple[int, ...]
    epochs: int
    scale: float
    components: tuple[int, ...]


RECIPES = {
    "digits": Recipe(20, (128,), 200, 0.2, (5, 10, 15, 20)),
    "breast_cancer": Recipe(10, (64,), 300, 1.0, (2, 4, 6, 8, 10, 12, 15)),
    "wine": Recipe(10, (64,), 600, 1.0, (1, 2, 3, 4, 6, 8, 10)),
}


@dataclass(frozen=True)
class Config:
    """Settings of all runs."""

    data: tuple[Name, ...] = ("digits", "breast_cancer", "wine")
    seeds: tuple[int, ...] = (1, 2, 3, 4, 5)
    """Each draws its own mask and initial weights."""
    missing: float = 0.5
    """Share of the elements."""
    particles: int = 20
    """K of the bound in training."""
    imputation_particles: int = 10_000
    batch_size: int = 64
    learning_rate: float = 1e-3
    """Initial value; it falls to 0 on a half cosine."""
    epoch_share: float = 1.0
    """Factor on the number of epochs of each data set."""
    out: Path = Path("runs/missing-data")


def main(config: Config) -> list[dict[str, Any]]:
    if not 0 < config.missing < 1:
        raise ValueError(f"expected --missing between 0 and 1, got {config.missing}")
    if config.imputation_particles < MIN_WEIGHTS:
        raise ValueError(f"expected at least {MIN_WEIGHTS} particles for k-hat, got {config.imputation_particles}")
    for name in config.data:
        for seed in config.seeds:
            folder = config.out / f"{name}-seed{seed}"
            if not finished(folder, {**shared(config), "data": name, "seed": seed}):
                run(config, name, seed, folder)
    found = reports(config.out, shared(config))
    rows = [summary(name, [r for r in found if r["data"] == name]) for name in dict.fromkeys(r["data"] for r in found)]
    (config.out / "table.json").write_text(json.dumps(rows, indent=2) + "\n")
    picture(rows).savefig(config.out / "rmse.png", dpi=120)
    print_table(config, rows)
    return rows


def shared(config: Config) -> dict[str, Any]:
    """The settings that all runs of a table have in common."""
    return {name: value for name, value in vars(config).items() if name not in ("data", "seeds", "out")}


def run(config: Config, name: Name, seed: int, folder: Path) -> None:
    """Impute one data set with one mask by every method, and write the report."""
    folder.mkdir(parents=True, exist_ok=True)
    full, x = incomplete(name, config.missing, seed)
    components = chosen_components(x, RECIPES[name].components, seed)
    started = time.perf_counter()
    pair = trained(config, name, x, seed)
    found = ppvae.impute(*pair, x, num_particles=config.imputation_particles, num_samples=SHOWN_DRAWS, seed=seed)
    seconds = time.perf_counter() - started
    filled = {
        "mean": torch.where(x.isnan(), x.nanmean(0), x),
        "PPCA": probabilistic_pca.imputed(probabilistic_pca.fit(x.double(), components, seed=seed), x.double()),
        "iterative": regressed(x, seed),
        OURS: found.mean,
    }
    if name == "digits":
        images(full, x, filled, found.samples).savefig(folder / "imputed.png", dpi=120)
    report = {
        **{"data": name, "seed": seed, **shared(config), "rows": len(x), "features": x.shape[1]},
        **{"recipe": vars(RECIPES[name]), "components": components, "seconds": seconds},
        **{"median_ess": found.weights.median_ess, "khat_bad": found.weights.khat_bad},
        "rmse": {method: rmse(values, full, x) for method, values in filled.items()},
    }
    write_report(folder, report)
    Console().print(f"{name}, seed {seed}: {report['rmse']}")


def incomplete(name: Name, missing: float, seed: int) -> tuple[Tensor, Tensor]:
    """A data set (N, D) and the same with NaN for missing elements; rows without any observed element are left out."""
    full = torch.from_numpy(getattr(datasets, f"load_{name}")().data).float()
    x = full.masked_fill(torch.rand(full.shape, generator=torch.Generator().manual_seed(seed)) < missing, torch.nan)
    if name == "digits":
        full, x = full / 16, x / 16
    else:
        centre = x.nanmean(0)
        scale = (x - centre).square().nanmean(0).sqrt()
        full, x = (full - centre) / scale, (x - centre) / scale
    some = ~x.isnan().all(1)
    return full[some], x[some]


def rmse(filled: Tensor, full: Tensor, x: Tensor) -> float:
    """Root of the mean squared error over the missing elements of x."""
    return (filled - full)[x.isnan()].double().square().mean().sqrt().item()


def chosen_components(x: Tensor, candidates: tuple[int, ...], seed: int) -> int:
    """The number of components whose probabilistic PCA predicts held-out observed elements best."""
    held = ~x.isnan() & (torch.rand(x.shape, generator=torch.Generator().manual_seed(seed + 1000)) < HELD_OUT)
    rest = x.masked_fill(held, torch.nan).double()
    errors = {}
    for number in candidates:
        filled = probabilistic_pca.imputed(probabilistic_pca.fit(rest, number, seed=seed), rest)
        errors[number] = (filled - x)[held].square().mean().item()
    return min(errors, key=lambda number: errors[number])


def regressed(x: Tensor, seed: int) -> Tensor:
    """x imputed by scikit-learn's IterativeImputer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 30 rounds give the error of 10 to three digits
        return torch.from_numpy(IterativeImputer(max_iter=30, random_state=seed).fit_transform(x.double().numpy()))


def trained(config: Config, name: Name, x: Tensor, seed: int) -> tuple[GaussianVAE, MeanFieldGaussian]:
    """A pair trained on x with its missing elements."""
    recipe, features = RECIPES[name], x.shape[1]
    torch.manual_seed(seed)
    likelihood = ppvae.likelihoods.Gaussian(recipe.scale, learned=True, missing=True)
    decoder = MLP(recipe.latent_dim, recipe.hidden, features, torch.nn.Tanh)
    model = GaussianVAE(decoder, recipe.latent_dim, likelihood)
    guide = MeanFieldGaussian(FillMissing(MLP(2 * features, recipe.hidden, 2 * recipe.latent_dim, torch.nn.Tanh)))
    epochs = max(1, round(config.epoch_share * recipe.epochs))
    ppvae.fit(
        model,
        guide,
        ppvae.IWAE(config.particles),
        ppvae.Dataset(x, name=name),
        epochs=epochs,
        batch_size=config.batch_size,
        optimizer=ppvae.adam(config.learning_rate, schedule=half_cosine(steps_of(epochs, len(x), config.batch_size))),
        device="cpu",
        seed=seed,
        progress=False,
    )
    return model, guide


def summary(name: str, group: list[dict[str, Any]]) -> dict[str, Any]:
    """Over the seeds of one data set: mean and standard deviation of each error, and the paired differences.

    A difference is that of MIWAE less the other method, with its standard error over the seeds.
    """
    errors = {method: [report["rmse"][method] for report in group] for method in (*OTHERS, OURS)}
    differences = {other: [a - b for a, b in zip(errors[OURS], errors[other], strict=True)] for other in OTHERS}
    return {
        "data": name,
        "seeds": [report["seed"] for report in group],
        "components": [report["components"] for report in group],
        "median_ess": mean(report["median_ess"] for report in group),
        "khat_bad": mean(report["khat_bad"] for report in group),
        "seconds": mean(report["seconds"] for report in group),
        "rmse": {method: [mean(values), spread(values)] for method, values in errors.items()},
        "difference": {o: [mean(v), spread(v) / len(v) ** 0.5, sum(d < 0 for d in v)] for o, v in differences.items()},
    }


def spread(values: list[float]) -> float:
    """Standard deviation; 0 for a single value."""
    return stdev(values) if len(values) > 1 else 0.0


def print_table(config: Config, rows: list[dict[str, Any]]) -> None:
    title = (
        f"root mean squared error of missing elements, {config.missing:.0%} missing at random; mean ± standard "
        "deviation over seeds (tables: in standard deviations of a feature; digits: grey values from 0 to 1)"
    )
    table = Table("data", *OTHERS, OURS, "seeds", title=title)
    title = f"{OURS} less the other, paired: mean ± standard error over seeds (seeds in which {OURS} is ahead)"
    paired = Table("data", *OTHERS, title=title)
    trust = Table("data", "k-hat bad", "median ESS", "seconds", title=f"weights of {OURS}, means over seeds")
    for row in rows:
        name, seeds = row["data"].replace("_", " "), len(row["seeds"])
        table.add_row(name, *(cell(*pair, seeds) for pair in row["rmse"].values()), str(seeds))
        cells = (f"{cell(d, error, seeds, '+')} ({ahead} of {seeds})" for d, error, ahead in row["difference"].values())
        paired.add_row(name, *cells)
        trust.add_row(name, *(f"{row[key]:{form}}" for key, form in NUMBERS.items()))
    Console().print(table, paired, trust)


def cell(value: float, error: float, seeds: int, sign: str = "") -> str:
    return f"{value:{sign}.3f}" + (f" ± {error:.3f}" if seeds > 1 else "")


NUMBERS = {"khat_bad": ".1%", "median_ess": ".0f", "seconds": ".0f"}


def picture(rows: list[dict[str, Any]]) -> Figure:
    """The error of each method as a share of that of mean imputation."""
    shares = {
        method: [[part / row["rmse"]["mean"][0] for part in row["rmse"][method]] for row in rows]
        for method in ("PPCA", "iterative", OURS)
    }
    series = {method: ([m for m, _ in pairs], [d for _, d in pairs]) for method, pairs in shares.items()}
    label = "RMSE, as a share of that of the mean; bars: sd over seeds"
    figure = plots.dots_with_errors([row["data"] for row in rows], series, label)
    figure.axes[0].set_xlim(left=min(min(values) for values, _ in series.values()) - 0.05)
    return figure


def images(full: Tensor, x: Tensor, filled: dict[str, Tensor], samples: Tensor) -> Figure:
    """Digits, what is seen of them (grey: missing), each method's imputation, and draws of MIWAE."""
    columns = {
        "whole": full,
        "seen": x.nan_to_num(0.5),
        **{method: filled[method].float() for method in (*OTHERS, OURS)},
        **{f"draw {number}": draw for number, draw in enumerate(samples, 1)},
    }
    grid = torch.stack([column[:SHOWN].reshape(-1, 8, 8) for column in columns.values()], 1)
    return plots.image_grid(grid, column_labels=list(columns))


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
