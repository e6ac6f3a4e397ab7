"""Semi-supervised MNIST for several numbers of labels and seeds, compared with published test accuracies.

Each run is one of ``ssvae_mnist.py`` in its own folder. A finished run is not repeated; an interrupted run is resumed.
Seeds set both the labelled images and the initial weights. Several processes can share the work by ``--seeds``; each
prints the table of all finished runs.

    python experiments/ssvae_table.py --labels 100 600 1000 3000 --seeds 0 1 2 3 4
    python experiments/ssvae_table.py --seeds                        # print the table without running anything

Published mean test accuracies: M2 and M1+M2, Kingma et al. 2014 ("Semi-supervised Learning with Deep Generative
Models", table 1); AAE, Makhzani et al. 2016 ("Adversarial Autoencoders", table 2); SDGM and ADGM, Maaloe et al. 2016
("Auxiliary Deep Generative Models"); Pyro's tutorial on the semi-supervised VAE (enumerated, auxiliary loss).
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, stdev

from rich.console import Console
from rich.table import Table
from ssvae_mnist import Config as Run
from ssvae_mnist import main as run
from ssvae_pairs import pair_name

from ppvae import cli
from ppvae.training.study import finished, reports

PUBLISHED = {
    "Pyro tutorial": {100: 0.932, 600: 0.944, 1000: 0.949, 3000: 0.958},
    "M2": {100: 0.880, 600: 0.951, 1000: 0.964, 3000: 0.961},
    "M1+M2": {100: 0.967, 600: 0.974, 1000: 0.976, 3000: 0.978},
    "AAE": {100: 0.981, 1000: 0.984},
    "SDGM": {100: 0.987},
    "ADGM": {100: 0.990},
}


@dataclass(frozen=True)
class Config:
    """Which runs."""

    labels: tuple[int, ...] = (100,)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    settings: Run = field(default_factory=Run)
    """Settings of every run; labels, seed, out and resume are set by this script."""
    out: Path = Path("runs/ssvae-table")


def main(config: Config) -> None:
    for labels in config.labels:
        for seed in config.seeds:
            folder = config.out / f"{labels}labels-seed{seed}"
            if not finished(folder, shared(config.settings)):
                run(replace(config.settings, labels=labels, seed=seed, out=folder, resume=True))
    print_table(reports(config.out, {}))


def shared(settings: Run) -> dict:
    """The settings that all runs have in common."""
    own = ("labels", "seed", "data", "out", "resume", "device")
    return {name: value for name, value in vars(settings).items() if name not in own}


def print_table(reports: list[dict]) -> None:
    counts = sorted({report["labels"] for report in reports})
    caption = "≥: the log p(x) of at least one run is a lower bound (k-hat is bad for more than 5% of its images)"
    table = Table("test accuracy", *(f"{count} labels" for count in counts), caption=caption)
    for name, row in PUBLISHED.items():
        table.add_row(name, *(f"{row[count]:.3f}" if count in row else "" for count in counts))
    for kind in sorted({kind_of(report) for report in reports}):
        cells = [[r for r in reports if kind_of(r) == kind and r["labels"] == count] for count in counts]
        table.add_row(kind, *(spread([r["test_accuracy"] for r in cell], ".4f") for cell in cells))
        table.add_row("  test log p(x), nats", *map(log_p, cells))
        seconds = (spread([r["training_seconds"] for r in cell], ".0f") for cell in cells)
        table.add_row("  seconds of training", *seconds)
    Console().print(table)


def kind_of(report: dict) -> str:
    """The name of a row: runs that differ only in labels and seed have the same one."""
    name = pair_name(report.get("pair", "m2"), report["guide"])  # reports of earlier versions have no pair
    pair = f"ppvae on {report['data']}, {name}, {report['objective']}"
    warped = "warped views" if report["augment"] else "no augmentation"
    return f"{pair}, {warped}, consistency {report['consistency']:g}, {report['epochs']} epochs{changed(report)}"


def changed(report: dict) -> str:
    """The other settings that differ from their defaults."""
    others = ("alpha", "generated", "batch_size", "labelled_per_step", "learning_rate", "smoke")
    return "".join(f", {n} {report[n]}" for n in others if report[n] != getattr(Run(), n))


def log_p(reports: list[dict]) -> str:
    """log p(x) of runs; marked if it is a lower bound for any of them."""
    mark = "≥ " * any(report["test_log_p_is_lower_bound"] for report in reports)
    return mark + spread([report["test_log_p"] for report in reports], ".2f")


def spread(values: list[float], form: str) -> str:
    """Mean and standard deviation over the seeds."""
    if not values:
        return "not run"
    deviation = f" ± {stdev(values):{form}}" if len(values) > 1 else ""
    return f"{mean(values):{form}}{deviation} ({len(values)} {'seed' if len(values) == 1 else 'seeds'})"


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
