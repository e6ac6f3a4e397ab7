"""log p(x) of pairs on MNIST: the guide's weights, fitted proposals, and annealed importance sampling.

Claim: with 50 latents the weights of an amortized guide do not give log p(x). k-hat is above its limit for most test
images, and the estimates are too low. A Gaussian with a full covariance, fitted to the posterior of each image, brings
k-hat below its limit for at least 95% of the images and agrees with annealed importance sampling, at a few times the
cost of the guide's weights.

    python experiments/believable_log_p.py                          # all pairs; trains those that are missing
    python experiments/believable_log_p.py --pairs VAE --images 100 --ais-images 0
    python experiments/believable_log_p.py --pairs "VAE, 10 latents" "VAE, 256 latents" --ais-images 0

A finished training, and a finished row of the table, is not repeated. Writes to the run folder: a folder for each
training, a JSON file for each pair, table.json, log_p.png.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from resource import RUSAGE_SELF, getrusage

import torch
from matplotlib.figure import Figure
from mnist_pairs import RECIPES, trained
from rich.console import Console
from rich.table import Table

import ppvae
from ppvae import cli
from ppvae.data import Dataset, load
from ppvae.engine.batch import Batch
from ppvae.evaluation.likelihood.stages import AUTO
from ppvae.training import environment

PAIRS = ("VAE", "IWAE", "flow guide", "two layers", "convolutional", "M2")

SETTINGS = {  # that each part of a row depends on
    "weights": ("images", "particles", "seed"),
    "equal trust": ("ais_images", "particles", "more_particles", "seed"),
    "AIS": ("ais_images", "particles", "temperatures", "chains", "seed"),
    "BDMC": ("bdmc_images", "particles", "temperatures", "chains", "seed"),
}


@dataclass(frozen=True)
class Config:
    """Settings of the table."""

    pairs: tuple[str, ...] = PAIRS
    """Names in mnist_pairs.py."""
    images: int = 1000
    """Test images."""
    particles: int = 1000
    more_particles: int = 5000
    """Of the guide's weights, on the images that AIS gets; compared with a fifth of ``particles`` of the fit."""
    ais_images: int = 50
    """Test images for annealed importance sampling; 0 skips it."""
    bdmc_images: int = 20
    """Simulated images for its two-sided form; 0 skips it."""
    temperatures: int = 1000
    chains: int = 16
    seed: int = 0
    out: Path = Path("runs/believable-log-p")


def main(config: Config) -> list[dict]:
    data = load("mnist")
    rows = [row(config, name, data.train, data.test) for name in config.pairs]
    (config.out / "table.json").write_text(json.dumps(rows, indent=2) + "\n")
    print_table(rows)
    figure(rows).savefig(config.out / "log_p.png", dpi=120)
    return rows


def row(config: Config, name: str, train: Dataset, test: Dataset) -> dict:
    """The results of one pair; parts that are in its file, of the same settings, are not repeated."""
    if name not in RECIPES:
        raise ValueError(f"expected pairs among {sorted(RECIPES)}, got {name!r}")
    Console().print(name)
    pair = trained(name, train, config.out)
    images = test.binarized(config.seed).batch(slice(0, config.images))
    few = images.rows(slice(0, config.ais_images))  # with labels where the label is a latent: AIS needs them
    few = few if name == "M2" else Batch(few.x)
    parts = {
        "weights": lambda: by_weights(config, pair, Batch(images.x)),
        "equal trust": lambda: at_equal_trust(config, pair, few),
        "AIS": lambda: against_ais(config, pair, few),
        "BDMC": lambda: on_simulated_data(config, pair, few.rows(slice(0, config.bdmc_images))),
    }
    wanted = {"weights": True, "equal trust": config.ais_images, "AIS": config.ais_images, "BDMC": config.bdmc_images}
    file = config.out / f"{name.replace(', ', '-').replace(' ', '-')}.json"
    found = json.loads(file.read_text()) if file.exists() else {"pair": name, **environment(torch.device("cpu"))}
    for part, compute in parts.items():
        used = {key: getattr(config, key) for key in SETTINGS[part]}
        if wanted[part] and found.get(part, {}).get("settings") != used:
            found[part] = {**compute(), "settings": used}
            file.write_text(json.dumps(found, indent=2) + "\n")
    return found


def by_weights(config: Config, pair: tuple, images: Batch) -> dict:
    """The guide's weights alone, and with fitted proposals."""
    (guide, guide_seconds), (fitted, seconds) = (
        timed(config, pair, images, config.particles, proposal) for proposal in (None, "auto")
    )
    return {
        "images": len(images),
        "particles": config.particles,
        "below_limit_guide": 1 - guide.khat_bad,
        "below_limit_fitted": 1 - fitted.khat_bad,
        "ess_guide": guide.median_ess,
        "ess_fitted": fitted.median_ess,
        "log_p_guide": guide.mean,
        "log_p_fitted": fitted.mean,
        "simulation_error": fitted.simulation_error,
        "sampling_error": fitted.sampling_error,
        "fitted": fitted.num_fitted,
        "failed": fitted.num_failed,
        "by_stage": dict(zip(fitted.stages, fitted.stage.bincount(minlength=len(fitted.stages)).tolist(), strict=True)),
        "seconds_per_image_guide": guide_seconds / len(images),
        "seconds_per_image_fitted": seconds / len(images),
        "peak_memory_mib": getrusage(RUSAGE_SELF).ru_maxrss // 1024,
    }


def timed(config: Config, pair: tuple, images: Batch, particles: int, proposal) -> tuple[ppvae.LogMarginal, float]:
    started = time.perf_counter()
    found = ppvae.log_marginal(
        *pair, images, proposal=proposal, num_particles=particles, seed=config.seed, keep_weights=False, progress=True
    )
    return found, time.perf_counter() - started


def at_equal_trust(config: Config, pair: tuple, images: Batch) -> dict:
    """Few weights of fitted proposals, and many of the guide."""
    few = timed(config, pair, images, config.particles // 5, AUTO[0].proposal)
    many = timed(config, pair, images, config.more_particles, None)
    return {
        "few_log_p": few[0].mean,
        "few_seconds_per_image": few[1] / len(images),
        "many_log_p": many[0].mean,
        "many_seconds_per_image": many[1] / len(images),
    }


def against_ais(config: Config, pair: tuple, images: Batch) -> dict:
    """The paired difference from AIS on test images."""
    started = time.perf_counter()
    annealed = ppvae.ais(pair[0], images, annealing=annealing(config), seed=config.seed, progress=True)
    seconds = time.perf_counter() - started
    fitted, _ = timed(config, pair, images, config.particles, "auto")
    difference = fitted.value - annealed.value
    return {
        "images": len(images),
        "ais": annealed.mean,
        "fitted_less_ais": difference.mean().item(),
        "fitted_less_ais_standard_error": difference.std().item() / len(images) ** 0.5,
        "seconds_per_image": seconds / len(images),
    }


def on_simulated_data(config: Config, pair: tuple, images: Batch) -> dict:
    """The bracket of BDMC on images that the model draws, and both estimates of the same images."""
    both = ppvae.bdmc(pair[0], images, annealing=annealing(config), seed=config.seed, progress=True)
    (fitted, _), (guide, _) = (
        timed(config, pair, images.with_x(both.x), config.particles, proposal) for proposal in ("auto", None)
    )
    return {
        "images": len(images),
        "lower": both.lower.mean,
        "upper": both.upper.mean,
        "fitted": fitted.mean,
        "fitted_error": fitted.simulation_error,
        "guide": guide.mean,
    }


def annealing(config: Config) -> ppvae.Annealing:
    return ppvae.Annealing(temperatures=config.temperatures, chains=config.chains)


def print_table(rows: list[dict]) -> None:
    title = f"{rows[0]['weights']['images']} test images, {rows[0]['weights']['particles']} particles; log p(x) in nats"
    table = Table("pair", "k-hat below limit", "median ESS", "log p(x): guide", "fitted", "ms", "failed", title=title)
    for found in rows:
        part = found["weights"]
        ms = [1000 * part[f"seconds_per_image_{which}"] for which in ("guide", "fitted")]
        table.add_row(
            found["pair"],
            f"{part['below_limit_guide']:.1%} -> {part['below_limit_fitted']:.1%}",
            f"{part['ess_guide']:.0f} -> {part['ess_fitted']:.0f}",
            f">= {part['log_p_guide']:.3f}",
            f"{part['log_p_fitted']:.3f} ± {part['simulation_error']:.3f}",
            f"{ms[0]:.0f} -> {ms[1]:.0f} ({ms[1] / ms[0]:.1f}x)",
            str(part["failed"]),
        )
    Console().print(table)
    if any("AIS" in found or "BDMC" in found for found in rows):
        Console().print(checks(rows))


def checks(rows: list[dict]) -> Table:
    table = Table("pair", "fitted less AIS", "s an image: AIS", "simulated: BDMC", "fitted", "guide")
    for found in rows:
        ais, bdmc = found.get("AIS"), found.get("BDMC")
        against = ("", "")
        if ais:
            error = ais["fitted_less_ais_standard_error"]
            against = f"{ais['fitted_less_ais']:+.3f} ± {error:.3f}", f"{ais['seconds_per_image']:.2f}"
        bracket = ("", "", "")
        if bdmc:
            bracket = f"{bdmc['lower']:.3f} to {bdmc['upper']:.3f}", f"{bdmc['fitted']:.3f}", f"{bdmc['guide']:.3f}"
        table.add_row(found["pair"], *against, *bracket)
    return table


def figure(rows: list[dict]) -> Figure:
    """What the guide's weights miss of log p(x), by pair, and the distance of the fitted proposals from AIS."""
    picture = Figure(figsize=(8, 1.5 + 0.4 * len(rows)), layout="constrained")
    axes = picture.subplots()
    for place, found in enumerate(rows):
        part, ais = found["weights"], found.get("AIS")
        axes.plot(part["log_p_guide"] - part["log_p_fitted"], place, "o", color="C0", label="guide")
        axes.errorbar(0, place, xerr=2 * part["simulation_error"], fmt="s", color="C1", label="fitted", capsize=3)
        if ais:
            error = 2 * ais["fitted_less_ais_standard_error"]
            axes.errorbar(-ais["fitted_less_ais"], place, xerr=error, fmt="^", color="C2", label="AIS", capsize=3)
    axes.set(yticks=range(len(rows)), yticklabels=[found["pair"] for found in rows])
    axes.set_xlabel("log p(x) less the fitted estimate, nats (bars: two standard errors)")
    axes.invert_yaxis()
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    axes.legend(unique.values(), unique.keys())
    return picture


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
