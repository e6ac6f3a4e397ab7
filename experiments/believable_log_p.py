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
from dataclasses import dataclass, replace
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from statistics import mean, stdev

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

SETTINGS = {  # that each part of a row depends on; the first is its number of images, where 0 skips the part
    "AIS": ("ais_images", "temperatures", "chains", "seed"),
    "BDMC": ("bdmc_images", "temperatures", "chains", "seed"),
    "weights": ("images", "particles", "seed"),
    "few images": ("ais_images", "particles", "more_particles", "seed"),
    "simulated images": ("bdmc_images", "particles", "temperatures", "chains", "seed"),
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
    known = images if name == "M2" else Batch(images.x)  # with labels where the label is a latent: AIS needs them
    few, template = (known.rows(slice(0, number)) for number in (config.ais_images, config.bdmc_images))
    file = config.out / f"{name.replace(', ', '-').replace(' ', '-')}.json"
    simulated = file.with_suffix(".pt")
    parts = {
        "AIS": lambda: annealed(config, pair, few),
        "BDMC": lambda: both_sides(config, pair, template, simulated),
        "weights": lambda: by_weights(config, pair, Batch(images.x)),
        "few images": lambda: on_few_images(config, pair, few),
        "simulated images": lambda: on_simulated_images(config, pair, template, simulated),
    }
    found = json.loads(file.read_text()) if file.exists() else {"pair": name, **environment(torch.device("cpu"))}
    for part, compute in parts.items():
        used = {key: getattr(config, key) for key in SETTINGS[part]}
        if getattr(config, SETTINGS[part][0]) and found.get(part, {}).get("settings") != used:
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


def annealed(config: Config, pair: tuple, images: Batch) -> dict:
    """log p(x) of each image by annealed importance sampling from the prior."""
    started = time.perf_counter()
    found = ppvae.ais(pair[0], images, annealing=annealing(config), seed=config.seed, progress=True)
    return {
        "values": found.value.tolist(),
        "expected_bias": -found.standard_error.square().mean().item() / 2,  # of the logarithm of a mean
        "seconds_per_image": (time.perf_counter() - started) / len(images),
    }


def both_sides(config: Config, pair: tuple, images: Batch, file: Path) -> dict:
    """The bracket of bidirectional Monte Carlo on images that the model draws; the images go to the file."""
    both = ppvae.bdmc(pair[0], images, annealing=annealing(config), seed=config.seed, progress=True)
    torch.save(both.x, file)
    return {"lower": both.lower.value.tolist(), "upper": both.upper.value.tolist()}


def on_few_images(config: Config, pair: tuple, images: Batch) -> dict:
    """Estimates of the images that annealed importance sampling gets, and equal trust.

    Equal trust: few weights of fitted proposals, and many of the guide.
    """
    fitted, _ = timed(config, pair, images, config.particles, "auto")
    few = timed(config, pair, images, config.particles // 5, AUTO[0].proposal)
    many = timed(config, pair, images, config.more_particles, None)
    return {
        "values": fitted.value.tolist(),
        "few_log_p": few[0].mean,
        "few_seconds_per_image": few[1] / len(images),
        "many_log_p": many[0].mean,
        "many_seconds_per_image": many[1] / len(images),
    }


def on_simulated_images(config: Config, pair: tuple, template: Batch, file: Path) -> dict:
    """Both estimates of the images of bidirectional Monte Carlo; with another seed than the one that drew them."""
    simulated = template.with_x(torch.load(file))
    config = replace(config, seed=config.seed + 1)
    fitted, guide = (timed(config, pair, simulated, config.particles, proposal)[0] for proposal in ("auto", None))
    return {"fitted": fitted.value.tolist(), "guide": guide.value.tolist()}


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
    for part, print_part in (("AIS", print_ais), ("BDMC", print_bdmc), ("few images", print_equal_trust)):
        if with_part := [found for found in rows if part in found]:
            print_part(with_part)


def print_ais(rows: list[dict]) -> None:
    table = Table("pair", "fitted less AIS", "expected bias of AIS", "s an image: AIS", title="The same images by AIS")
    for found in rows:
        (difference, error), part = less_ais(found), found["AIS"]
        cells = f"{difference:+.3f} ± {error:.3f}", f"{part['expected_bias']:+.3f}", f"{part['seconds_per_image']:.2f}"
        table.add_row(found["pair"], *cells)
    Console().print(table)


def print_bdmc(rows: list[dict]) -> None:
    table = Table("pair", "BDMC: lower", "upper", "fitted", "guide", title="log p(x) of simulated images")
    for found in rows:
        values = found["BDMC"] | found["simulated images"]
        table.add_row(found["pair"], *(f"{mean(values[each]):.3f}" for each in ("lower", "upper", "fitted", "guide")))
    Console().print(table)


def print_equal_trust(rows: list[dict]) -> None:
    title = "Few weights of the first fit, more of the guide: log p(x), ms an image"
    table = Table("pair", "fitted", "ms", "guide", "ms", title=title)
    for found in rows:
        part = found["few images"]
        cells = (
            (f"{part[f'{which}_log_p']:.3f}", f"{1000 * part[f'{which}_seconds_per_image']:.0f}")
            for which in ("few", "many")
        )
        table.add_row(found["pair"], *(cell for pair in cells for cell in pair))
    Console().print(table)


def less_ais(found: dict) -> tuple[float, float]:
    """Mean paired difference of the fitted estimates and AIS, and its standard error over images."""
    pairs = zip(found["few images"]["values"], found["AIS"]["values"], strict=True)
    differences = [fitted - annealed for fitted, annealed in pairs]
    return mean(differences), stdev(differences) / len(differences) ** 0.5


def figure(rows: list[dict]) -> Figure:
    """What the guide's weights miss of log p(x), by pair, and the distance of the fitted proposals from AIS."""
    picture = Figure(figsize=(8, 1.5 + 0.4 * len(rows)), layout="constrained")
    axes = picture.subplots()
    for place, found in enumerate(rows):
        part = found["weights"]
        axes.plot(part["log_p_guide"] - part["log_p_fitted"], place, "o", color="C0", label="guide")
        axes.errorbar(0, place, xerr=2 * part["simulation_error"], fmt="s", color="C1", label="fitted", capsize=3)
        if "AIS" in found:
            difference, error = less_ais(found)
            axes.errorbar(-difference, place, xerr=2 * error, fmt="^", color="C2", label="AIS", capsize=3)
    axes.set(yticks=range(len(rows)), yticklabels=[found["pair"] for found in rows])
    axes.set_xlabel("log p(x) less the fitted estimate, nats (bars: two standard errors)")
    axes.invert_yaxis()
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    axes.legend(unique.values(), unique.keys())
    return picture


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
