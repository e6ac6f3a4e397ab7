"""Class-conditional samples of M2, read by an independent classifier.

Claim: samples of p(x | y, z) with z ~ p(z) show their class if the decoder learns from `GeneratedLabels` (Hu et al.
2017, "Toward Controlled Generation of Text"): 98% are read as their class, with 100 labels and seed 0. A guide
q(z | x, y) alone gives 78%, and one q(z | x) for all classes 45%, because z then holds a part of the class.

The classifier is trained on all labelled training images (60,000 of MNIST) and on none of the runs. It is trained on
grey images, randomly warped, because it reads mean images E[x | y, z], which are grey and slightly blurred as well. A
finished classifier is kept in the run folder and not trained again.

    python experiments/class_samples.py --runs runs/ssvae-mnist-100labels-seed0-1

Each argument is the folder of a finished run of ssvae_mnist.py. Writes to the run folder: the classifier's training,
report.json.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from classifiers import accuracy, classifier_player
from rich.console import Console
from rich.table import Table
from schedules import half_cosine, steps_of
from ssvae_figures import with_every_class
from ssvae_mnist import Config as Run
from ssvae_pairs import CLASSES, build_pair, pair_name
from torch import nn

import ppvae
from ppvae import cli
from ppvae.data import Dataset, load
from ppvae.nn import ConvClassifier, RandomWarp
from ppvae.training import RunDir, environment, resolve_device, train
from ppvae.training.study import REPORT, write_report

BATCH_SIZE = 100
console = Console()


@dataclass(frozen=True)
class Config:
    """Which runs, and how they are read."""

    runs: tuple[Path, ...]
    """Folders of finished runs of ssvae_mnist.py on the same data."""
    samples: int = 1000
    """Styles z ~ p(z); each is decoded with every class."""
    epochs: int = 4
    """Of the classifier."""
    seed: int = 0
    device: str = "auto"
    out: Path = Path("runs/class-samples")


def main(config: Config) -> dict:
    if config.samples < 2:
        raise ValueError(f"expected --samples of at least 2, got {config.samples}")
    device = resolve_device(config.device)
    runs = {folder: settings(folder) for folder in config.runs}
    data = common_data(runs.values())
    splits = load(data, binarization="none", validation=0)
    classifier = trained(config, splits.train)
    rows = [
        {
            "run": str(folder),
            "pair": pair_name(run.pair, run.guide),
            **scores(config, classifier, decoder(run, folder, splits.test, device)),
        }
        for folder, run in runs.items()
    ]
    report = {
        "data": data,
        "samples": config.samples,
        "epochs": config.epochs,
        "seed": config.seed,
        "classifier_accuracy": accuracy(classifier, splits.test.to(device)),
        "runs": rows,
        **environment(device),
    }
    write_report(config.out, report)
    print_table(report)
    return report


def settings(folder: Path) -> Run:
    """The settings of the finished run in a folder. Raises ValueError if there is none."""
    file = folder / REPORT
    saved = json.loads(file.read_text()) if file.exists() else {}
    if "labelled_per_step" not in saved:
        raise ValueError(f"expected the folder of a finished run of ssvae_mnist.py, got {folder}")
    return Run(**{field.name: saved[field.name] for field in fields(Run) if field.name in saved})


def common_data(runs: Iterable[Run]) -> str:
    """The name of the data that all runs have in common. Raises ValueError if there is no such name."""
    names = sorted({run.data for run in runs})
    if len(names) != 1:
        raise ValueError(f"expected runs on one data set, got {names}; read the runs on each data set by themselves")
    return names[0]


def decoder(run: Run, folder: Path, test: Dataset, device: torch.device) -> nn.Module:
    """The model of a finished run."""
    model, guide = build_pair(run, test.event_shape, device)
    ppvae.load_checkpoint(folder / "last.safetensors", model, guide)
    return model.eval()


def trained(config: Config, data: Dataset) -> nn.Module:
    """The classifier of these data, trained in the run folder or read from there."""
    torch.manual_seed(config.seed)
    classifier = nn.Sequential(RandomWarp(), ConvClassifier(data.event_shape, CLASSES))
    schedule = half_cosine(steps_of(config.epochs, len(data), BATCH_SIZE))
    train(
        [classifier_player(classifier, ppvae.adam(2e-3, schedule=schedule))],
        data,
        epochs=config.epochs,
        batch_size=BATCH_SIZE,
        run_dir=RunDir(config.out / f"classifier-{data.name}", resume=True),
        device=config.device,
        seed=config.seed,
    )
    return classifier.eval()


@torch.no_grad()
def scores(config: Config, classifier: nn.Module, model: nn.Module) -> dict[str, float | list[float]]:
    """The share of samples that are read as their class: of each class, and of all with its error over styles."""
    parameter = next(model.parameters())
    styles = torch.randn(config.samples, model.latent_dim, generator=torch.Generator().manual_seed(config.seed))
    read = torch.cat([classifier(with_every_class(model, z)).argmax(-1) for z in styles.to(parameter).split(100)])
    right = (read == torch.arange(CLASSES, device=read.device)).double()
    of_styles = right.mean(1)
    return {
        "share": right.mean().item(),
        "standard_error": (of_styles.std() / len(of_styles) ** 0.5).item(),
        "share_by_class": right.mean(0).tolist(),
    }


def print_table(report: dict) -> None:
    accuracy = f"{report['classifier_accuracy']:.2%} of the {report['data']} test images"
    title = f"samples read as their class, {report['samples']} of each; the classifier reads {accuracy} correctly"
    runs = report["runs"]
    table = Table("class", *(f"{Path(run['run']).name}\n({run['pair']})" for run in runs), title=title)
    for label in range(CLASSES):
        table.add_row(str(label), *(f"{run['share_by_class'][label]:.1%}" for run in runs))
    table.add_section()
    table.add_row("all", *(f"{run['share']:.1%}" for run in runs))
    table.add_row("± error over styles", *(f"{run['standard_error']:.1%}" for run in runs))
    console.print(table)


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
