"""Semi-supervised MNIST over numbers of labels and seeds, beside published test accuracies.

Each run is one of ``ssvae_mnist.py``, in a folder of its own; a run that is finished is not run again, one that was
stopped is taken up. Seeds choose the labelled images and the initial values both. Several processes can share the
work by ``--seeds``; any of them prints the table of what is finished.

    python experiments/ssvae_table.py --labels 100 600 1000 3000 --seeds 0 1 2 3 4
    python experiments/ssvae_table.py --seeds                        # print the table, run nothing

Published, mean test accuracy: M2 and M1+M2, Kingma et al. 2014 ("Semi-supervised Learning with Deep Generative
Models", table 1); AAE, Makhzani et al. 2016 ("Adversarial Autoencoders", table 2); SDGM and ADGM, Maaloe et al. 2016
("Auxiliary Deep Generative Models"); Pyro's tutorial on the semi-supervised VAE (enumerated, auxiliary loss).
"""

from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev

from rich.console import Console
from rich.table import Table
from ssvae_mnist import Config as Run
from ssvae_mnist import main as run

from ppvae import cli
from ppvae.training.study import finished, reports, started

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
    """Of every run; its labels, seed, out and resume are set here."""
    out: Path = Path("runs/ssvae-table")


def main(config: Config) -> None:
    for labels in config.labels:
        for seed in config.seeds:
            folder = config.out / f"{labels}labels-seed{seed}"
            if not finished(folder, shared(config.settings)):
                run(replaced(config.settings, labels=labels, seed=seed, out=folder, resume=started(folder)))
    print_table(reports(config.out, {}))


def shared(settings: Run) -> dict:
    """What all runs have in common."""
    own = ("labels", "seed", "data", "out", "resume", "device")
    return {name: value for name, value in vars(settings).items() if name not in own}


def replaced(settings: Run, **changes) -> Run:
    return Run(**{**vars(settings), **changes})


def print_table(reports: list[dict]) -> None:
    counts = sorted({report["labels"] for report in reports})
    table = Table("test accuracy", *(f"{count} labels" for count in counts))
    for name, row in PUBLISHED.items():
        table.add_row(name, *(f"{row[count]:.3f}" if count in row else "" for count in counts))
    for kind in sorted({kind_of(report) for report in reports}):
        cells = [[r for r in reports if kind_of(r) == kind and r["labels"] == count] for count in counts]
        table.add_row(kind, *(spread([r["test_accuracy"] for r in cell], ".4f") for cell in cells))
        table.add_row("  test NLL, nats", *(spread([r["test_nll"] for r in cell], ".2f") for cell in cells))
        seconds = (spread([r["training_seconds"] for r in cell], ".0f") for cell in cells)
        table.add_row("  seconds of training", *seconds)
    Console().print(table)


def kind_of(report: dict) -> str:
    pair = f"ppvae on {report['data']}, {report['guide']}, {report['objective']}"
    warped = "warped views" if report["augment"] else "no augmentation"
    return f"{pair}, {warped}, consistency {report['consistency']:g}, {report['epochs']} epochs{unusual(report)}"


def unusual(report: dict) -> str:
    """The other settings, where they are not the usual ones."""
    others = ("alpha", "batch_size", "labelled_per_step", "learning_rate", "smoke")
    return "".join(f", {n} {report[n]}" for n in others if report[n] != getattr(Run(), n))


def spread(values: list[float], form: str) -> str:
    if not values:
        return "not run"
    deviation = f" +- {stdev(values):{form}}" if len(values) > 1 else ""
    return f"{mean(values):{form}}{deviation} ({len(values)} {'seed' if len(values) == 1 else 'seeds'})"


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
