"""Codes for a classifier: an encoder trained on images without labels, then a classifier trained with few labels.

Claim: the code of a generative model is a better input of a classifier than the image where labels are few (Kingma et
al. 2014, "Semi-supervised Learning with Deep Generative Models", the model M1). The table has the test accuracy with 10
to 1,000 labelled images, as many of each class. The encoders, with the same hidden layers:

    random        torch's initial weights
    PCA           the same network plus a linear map, set to the posterior mean of probabilistic PCA of all images
    autoencoder   trained on all images without labels, from torch's initial weights (autoencoders.py --start random)
    beta 1, 4     the encoder of a VAE and of a beta-VAE, trained in the same way; the code is the mean of q(z | x)

A linear classifier, or one with a hidden layer, reads the code:

    frozen        the codes are computed once, with the encoder in evaluation mode; the classifier alone is trained
    tuned         then encoder and classifier are trained together, on the same labels

The tuned random encoder is the network that is not pretrained; differences to it are paired by seed. Early stopping:
of all epochs, the one with the lowest cross-entropy on labelled validation images is kept. By default there are as many
of them as labelled training images, so that n labels of the table stand for 2 n labelled images in all. The seed
chooses the labelled images of both parts, the initial weights of the classifier and of the random encoder, and the
order of the labelled images; there is one encoder of each other kind for all seeds. The learning rates were chosen on
validation images with another seed.

The last rows are documented results of the semi-supervised VAE, one model of images and labels that is trained end to
end by ssvae_table.py; see docs/results/semi_supervised_mnist.md. It reads no validation labels.

    python experiments/pretraining.py
    python experiments/pretraining.py --labels 100 --heads linear
    python experiments/pretraining.py --validation 1000                  # validation labels, for any number of labels

A finished run is not repeated; encoders that are not there yet are trained. Writes to runs/pretraining/DATA: a folder
with report.json for each run, table.json, and a figure for each classifier, frozen and tuned.
"""

import json
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal

import torch
from autoencoder_pairs import RECIPES, name_of, networks_of, principal, trained
from autoencoders import SHARED
from autoencoders import Config as Encoders
from classifiers import BestWeights, accuracy, classifier_player
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import ppvae
from ppvae import cli, plots
from ppvae.data import Dataset, Splits, hide_labels, load
from ppvae.nn import MLP
from ppvae.training import Batching, environment, resolve_device, train
from ppvae.training.study import finished, reports, write_report

Kind = Literal["random", "PCA", "autoencoder", "beta 1", "beta 4"]
Head = Literal["linear", "MLP"]
HIDDEN: dict[Head, tuple[int, ...]] = {"linear": (), "MLP": (256,)}  # layers of the classifier
MODES = ("frozen", "tuned")
NOT_PRETRAINED = ("random", "tuned")
CLASSIFIER = ("epochs", "steps_per_epoch", "batch_size", "head_rate", "tuning_rate")
SETTINGS = ("encoder_seed", "depth", "width", "validation", *CLASSIFIER)
DOCUMENTED = {  # accuracy and its deviation over 5 seeds, by labels
    # ssvae_table.py --labels 100; --labels 1000 --settings.guide label --settings.generated 0
    "semi-supervised VAE, warped views": {100: (0.9798, 0.0061), 1000: (0.9871, 0.0006)},
    # ssvae_table.py --labels 100 --settings.guide label --settings.generated 0 --settings.no-augment
    "semi-supervised VAE, no augmentation": {100: (0.9360, 0.0137)},
}


@dataclass(frozen=True)
class Config:
    """Settings of the table."""

    kinds: tuple[Kind, ...] = ("random", "PCA", "autoencoder", "beta 1", "beta 4")
    labels: tuple[int, ...] = (10, 30, 100, 300, 1000)
    """Labelled training images."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    heads: tuple[Head, ...] = ("linear", "MLP")
    encoder_seed: int = 0
    """Of the training of each encoder."""
    depth: int = 3
    """Hidden layers of the encoder."""
    width: int = 32
    """Length of the code."""
    validation: int = 0
    """Labelled validation images; 0: as many as labelled training images."""
    epochs: int = 30
    steps_per_epoch: int = 10
    batch_size: int = 100
    head_rate: float = 1e-2
    """Learning rate of a classifier on frozen codes."""
    tuning_rate: float = 3e-4
    """Learning rate of encoder and classifier together."""
    encoders: Encoders = field(
        default_factory=lambda: Encoders(
            start="random", hidden=(1000, 500, 250), epochs=6, batch_size=100, out=Path("runs/autoencoders-random")
        )
    )
    """Settings of the encoders as of autoencoders.py, with the data and the device of the table."""
    out: Path = Path("runs/pretraining")


def main(config: Config) -> list[dict[str, Any]]:
    check(config)
    splits, out = splits_of(config), config.out / config.encoders.data
    unlabelled = splits.train.unlabelled()
    for kind, seed in product(config.kinds, config.seeds):
        folders = {labels: out / f"{kind.replace(' ', '-')}-labels{labels}-seed{seed}" for labels in config.labels}
        settings = {labels: {**shared(config), "kind": kind, "labels": labels, "seed": seed} for labels in folders}
        todo = [labels for labels, folder in folders.items() if not finished(folder, settings[labels])]
        guide = encoder(config, unlabelled, kind, seed) if todo else None
        for labels in todo:
            folders[labels].mkdir(parents=True, exist_ok=True)
            report = {**settings[labels], "accuracy": accuracies(config, splits, guide, labels, seed)}
            write_report(folders[labels], report | environment(resolve_device(config.encoders.device)))
    table = summary(config, reports(out, shared(config)))
    (out / "table.json").write_text(json.dumps(table, indent=2, allow_nan=False) + "\n")
    for head, mode in product(config.heads, MODES):
        figure(config, table, head, mode).savefig(out / f"{mode}-{head}.png", dpi=120)
    print_tables(config, table)
    return table


def check(config: Config) -> None:
    for name in ("kinds", "labels", "seeds", "heads"):
        if not getattr(config, name):
            raise ValueError(f"expected --{name} with at least one value, got none")


def shared(config: Config) -> dict[str, Any]:
    """The settings that all runs of one table have in common."""
    encoders = {name: getattr(config.encoders, name) for name in SHARED}
    return {**{name: getattr(config, name) for name in SETTINGS}, "heads": config.heads, "encoders": encoders}


def splits_of(config: Config) -> Splits:
    """The data as grey values, on the device."""
    splits, device = load(config.encoders.data, binarization="none"), resolve_device(config.encoders.device)
    return Splits(splits.train.to(device), splits.test.to(device), splits.validation.to(device))


def encoder(config: Config, data: Dataset, kind: Kind, seed: int) -> ppvae.AmortizedGuide:
    """The guide whose means are the codes, in evaluation mode: trained, or as it starts."""
    networks = networks_of(config.encoders, data, config.depth, config.width)
    if kind in RECIPES:
        name = name_of(kind, config.depth, config.width, config.encoder_seed)
        return trained(config.encoders, RECIPES[kind], networks, data, name, config.encoder_seed)[1]
    torch.manual_seed(seed)
    start = principal(data, config.width) if kind == "PCA" else None
    _, guide = RECIPES["autoencoder"].make(replace(networks, start=start))
    return guide.eval().to(data.x.device)


def accuracies(
    config: Config, splits: Splits, guide: ppvae.AmortizedGuide, labels: int, seed: int
) -> dict[str, dict[str, float]]:
    """Test accuracy by head and mode. The guide is changed."""
    learned = labelled(splits.train, labels, seed), labelled(splits.validation, config.validation or labels, seed)
    untuned = {name: value.clone() for name, value in guide.state_dict().items()}
    codes = [coded(guide, part) for part in (*learned, splits.test)]
    found = {}
    for head in config.heads:
        torch.manual_seed(seed)
        classifier = MLP(config.width, HIDDEN[head], splits.train.num_classes).to(splits.train.x.device)
        fit(config, classifier, *codes[:2], config.head_rate, seed)
        frozen = accuracy(classifier, codes[2])
        network = nn.Sequential(Code(guide), classifier)
        fit(config, network, *learned, config.tuning_rate, seed)
        found[head] = {"frozen": frozen, "tuned": accuracy(network, splits.test)}
        guide.load_state_dict(untuned)
    return found


def labelled(data: Dataset, labels: int, seed: int) -> Dataset:
    """That many rows with their labels, as many of each class."""
    kept = hide_labels(data, labels, seed)
    return kept.take(kept.y >= 0)


def coded(guide: ppvae.AmortizedGuide, data: Dataset) -> Dataset:
    """The codes of the rows, with their labels."""
    return Dataset(ppvae.features(guide, data.unlabelled()).detach(), data.y, num_classes=data.num_classes)


class Code(nn.Module):
    """The mean of q(z | x): (B, *event_shape) -> (B, latent_dim)."""

    def __init__(self, guide: ppvae.AmortizedGuide):
        super().__init__()
        self.guide = guide

    def forward(self, x: Tensor) -> Tensor:
        return self.guide.distribution(self.guide.encode(x)).mean


def fit(config: Config, network: nn.Module, data: Dataset, validation: Dataset, rate: float, seed: int) -> None:
    """Train a classifier, and load the weights of its best epoch on the validation data."""
    best = BestWeights(network, validation)
    train(
        [classifier_player(network, ppvae.adam(rate))],
        data,
        epochs=config.epochs,
        batch_size=Batching(config.batch_size, steps_per_epoch=config.steps_per_epoch),
        evaluate=best,
        device=config.encoders.device,
        seed=seed,
        progress=False,
    )
    best.restore()


def summary(config: Config, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each kind, mode, head and number of labels: accuracy, and its paired difference to no pretraining."""
    by_run = {
        (r["kind"], mode, head, r["labels"], r["seed"]): r["accuracy"][head][mode]
        for r in found
        for head, mode in product(config.heads, MODES)
    }
    rows = []
    for cell in product(config.kinds, MODES, config.heads, config.labels):
        values = {seed: by_run[*cell, seed] for seed in config.seeds}
        base = {seed: by_run.get((*NOT_PRETRAINED, *cell[2:], seed)) for seed in config.seeds}
        differences = [value - base[seed] for seed, value in values.items() if base[seed] is not None]
        rows.append(
            {
                **dict(zip(("kind", "mode", "head", "labels"), cell, strict=True)),
                "accuracy": mean_and_deviation(list(values.values())),
                "difference": None if cell[:2] == NOT_PRETRAINED else mean_and_deviation(differences),
                "seeds": config.seeds,
            }
        )
    return rows


def mean_and_deviation(values: list[float]) -> list[float] | None:
    """Mean and standard deviation over the seeds, 0 for a single one; None without values."""
    return [mean(values), stdev(values) if len(values) > 1 else 0.0] if values else None


def figure(config: Config, table: list[dict[str, Any]], head: Head, mode: str) -> Figure:
    """Accuracy against the number of labels, with one line for each encoder."""
    values: dict[str, list[float]] = {}
    errors: dict[str, list[float]] = {}
    for row in table:
        if row["head"] == head and (row["mode"] == mode or (row["kind"], row["mode"]) == NOT_PRETRAINED):
            values.setdefault(label(row), []).append(row["accuracy"][0])
            errors.setdefault(label(row), []).append(row["accuracy"][1])
    drawn = plots.curves(config.labels, values, "labelled training images", "test accuracy", errors)
    drawn.axes[0].set_xscale("log")
    drawn.axes[0].set_xticks(config.labels, [str(number) for number in config.labels])
    drawn.axes[0].minorticks_off()
    drawn.suptitle(f"{config.encoders.data}, {head} classifier; bars: sd over {len(config.seeds)} label seeds")
    return drawn


def label(row: dict[str, Any]) -> str:
    """The name of a line."""
    return "not pretrained" if (row["kind"], row["mode"]) == NOT_PRETRAINED else f"{row['kind']}, {row['mode']}"


def print_tables(config: Config, table: list[dict[str, Any]]) -> None:
    """Accuracies, and paired differences."""
    held = f"{config.validation or 'as many'} validation labels, {len(config.seeds)} seeds; mean ± sd over seeds"
    for key, title in (
        ("accuracy", f"test accuracy by labelled training images, {config.encoders.data}; {held}"),
        ("difference", "accuracy less that of the network that is not pretrained, paired by seed; mean ± sd"),
    ):
        shown = Table("encoder", "classifier", *map(str, config.labels), title=title)
        for kind, mode, head in product(config.kinds, MODES, config.heads):
            rows = [row for row in table if (row["kind"], row["mode"], row["head"]) == (kind, mode, head)]
            shown.add_row(label(rows[0]), head, *(shown_as(row[key], key == "difference") for row in rows))
        if key == "accuracy" and config.encoders.data == "mnist":
            for name, cells in DOCUMENTED.items():
                shown.add_row(name, "documented", *(shown_as(cells.get(number)) for number in config.labels))
        Console().print(shown)


def shown_as(values: list[float] | tuple[float, float] | None, signed: bool = False) -> str:
    return "" if values is None else f"{values[0]:{'+' if signed else ''}.3f} ± {values[1]:.3f}"


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
