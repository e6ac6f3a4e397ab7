"""InfoGAN: codes of a generator that are recognised in its samples, on MNIST and on dSprites.

Claim: Chen et al. 2016 ("InfoGAN: Interpretable Representation Learning by Information Maximizing Generative
Adversarial Nets"): without labels a categorical code of ten values becomes the class of a digit. Taken for a classifier
of the test images, with each value assigned to a class, it has an error of 5%. Noise and codes (62 elements, ten
classes, two continuous codes), optimizers and batch size are theirs; the networks are smaller.

On dSprites: Kim and Mnih 2018 ("Disentangling by Factorising") train InfoWGAN-GP with four continuous codes and one of
three values, for which they report a low FactorVAE score; Lin et al. 2020 ("InfoGAN-CR and ModelCentrality") train
InfoGAN with five continuous codes and spectral normalisation in the discriminator. The metrics read the codes that the
guide recognises in the images of all factors: the means of the continuous codes and the probabilities of the classes.

The generator has no density: there is no log p(x), and no ELBO.

    python experiments/infogan.py                                             # MNIST, seeds 0, 1 and 2
    python experiments/infogan.py --data sprites --seeds 0
    python experiments/infogan.py --data sprites --seeds 0 --classes 0 --codes 5 --out runs/infogan-five-codes
    python experiments/infogan.py --data sprites --seeds 0 --gan info-wgan-gp --out runs/infowgan

A finished run is not trained again; an interrupted one is resumed. Writes to runs/infogan/DATA/seedN: checkpoints,
metrics.jsonl, report.json, samples.png (a row for each class, a column for each draw of the noise), codes.png (each
code varied), information.png (the bounds in training).
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from infogan_figures import save_figures
from infogan_networks import Networks, build
from rich.console import Console
from rich.table import Table
from scipy.optimize import linear_sum_assignment
from torch import nn

import ppvae
from ppvae import cli
from ppvae.data import Dataset, Splits, load
from ppvae.evaluation.disentanglement import Representation, represent, score
from ppvae.guides import RecognitionGuide
from ppvae.models import ImplicitModel
from ppvae.training import Batching, RunDir, environment, resolve_device
from ppvae.training.study import claim, finished, reports, write_report

EPOCH = 390  # steps between two lines of the log
SHOWN = ("factor_vae", "higgins", "mig", "sap_r2", "dci_disentanglement", "modularity", "irs")  # metrics in the table
FACTORS = ("sprites", "dsprites")  # data made from ground-truth factors
DEFAULTS: dict[str, dict] = {  # of the settings that are None, by the data
    "images": {
        "classes": 10,
        "codes": 2,
        "noise": 62,
        "batch_size": 128,
        "steps": 9_750,
        "spectral": False,
        "views": True,
    },
    "factors": {
        "classes": 3,
        "codes": 4,
        "noise": 5,
        "batch_size": 64,
        "steps": 9_750,
        "spectral": True,
        "views": False,
    },
}


@dataclass(frozen=True)
class Config:
    """Settings of the runs. Those that are None depend on the data."""

    data: Literal["mnist", "fashion_mnist", "digits", "sprites", "dsprites"] = "mnist"
    seeds: tuple[int, ...] = (0, 1, 2)
    gan: Literal["info-gan", "info-wgan-gp"] = "info-gan"
    classes: int | None = None
    """Values of the categorical code; 0 for none. Default: 10, of data with factors 3."""
    codes: int | None = None
    """Continuous codes; default: 2, of data with factors 4."""
    noise: int | None = None
    """Elements of the noise; default: 62, of data with factors 5."""
    lambda_class: float = 1.0
    """Weight of the mutual information of the categorical code."""
    lambda_codes: float = 1.0
    """Weight of the mutual information of the continuous codes."""
    channels: tuple[int, ...] | None = None
    """Of the convolutions of discriminator and guide; the generator has them in reverse order."""
    width: int = 128
    """Units of the layer between convolutions and outputs."""
    shared: bool = False
    """Guide and discriminator share the convolutions, and both of them train these."""
    guide_noise: float = 0.0
    """Standard deviation of noise added to what the guide sees in training."""
    views: bool | None = None
    """In training the guide reads the samples under random warps and with other thickness of the strokes, so that codes
    cannot be any of these; default: for images without factors."""
    spectral: bool | None = None
    """Normalise the weights of the discriminator by their spectral norm; default: for data with factors."""
    steps: int | None = None
    """Of training; default: 9,750."""
    batch_size: int | None = None
    learning_rate: float = 1e-3
    """Of the generator and the guide."""
    adversary_learning_rate: float = 2e-4
    """Of the discriminator or critic."""
    bfloat16: bool = True
    """Compute products of the networks in bfloat16, except in the last layers of guide and discriminator."""
    leave_out: tuple[str, ...] = ("dci",)
    """Metrics of data with factors to skip."""
    device: str = "auto"
    out: Path = Path("runs/infogan")


def main(config: Config) -> list[dict]:
    config = completed(config)
    splits = load(config.data, binarization="none")
    for seed in config.seeds:
        run(config, splits, seed)
    found = [report for report in reports(config.out / config.data, settings(config)) if report["seed"] in config.seeds]
    print_table(config, found)
    return found


def completed(config: Config) -> Config:
    """The settings with the defaults of the data. Raises ValueError for no seed, and where nothing is recognised."""
    if not config.seeds:
        raise ValueError("expected --seeds with at least one value, got none")
    kind = "factors" if config.data in FACTORS else "images"
    defaults = {**DEFAULTS[kind], "channels": (32, 32, 64, 64) if kind == "factors" else (32, 64)}
    missing = {name: value for name, value in defaults.items() if getattr(config, name) is None}
    config = replace(config, **missing)
    if not config.classes and not config.codes:
        raise ValueError("expected --classes or --codes above 0, got neither; the guide has nothing to recognise")
    if config.steps % min(EPOCH, config.steps):
        raise ValueError(f"expected --steps of at most {EPOCH} or a multiple of it, got {config.steps}")
    return config


def settings(config: Config) -> dict:
    """The settings, without the seed, that determine the result of a run."""
    others = ("seeds", "device", "out", "leave_out")
    return {name: value for name, value in asdict(config).items() if name not in others}


def run(config: Config, splits: Splits, seed: int) -> None:
    """Train and score one generator, unless that is done."""
    folder, own = config.out / config.data / f"seed{seed}", {**settings(config), "seed": seed}
    if finished(folder, own):
        return
    folder.mkdir(parents=True, exist_ok=True)
    claim(folder, own)
    Console().print(f"run folder {folder}")
    torch.manual_seed(seed)
    device = resolve_device(config.device)
    model, guide, network = build(networks(config, splits.train.event_shape))
    players = make_players(config, model, guide, network)
    metrics = train(config, players, guide, splits, folder, seed)
    scores: dict = {}
    if config.data in FACTORS:
        scores = {"metrics": disentangled(config, model, guide, splits.train, seed)}
    if config.data not in FACTORS and config.classes:
        scores = agreement(guide, splits.test.to(device), config.classes)
    found = information(config, metrics)
    save_figures(config, model, scores.get("assignment", [-1] * config.classes), found, folder)
    last = {name: values[-1] for name, values in found.items()}
    report = {**own, **scores, "information": last, "training_seconds": metrics[-1]["seconds"]}
    write_report(folder, report | environment(device))


def networks(config: Config, shape: tuple[int, ...]) -> Networks:
    names = ("classes", "codes", "noise", "channels", "width", "shared", "guide_noise", "views", "spectral", "bfloat16")
    return Networks(shape=shape, **{name: getattr(config, name) for name in names})


def make_players(config: Config, model: ImplicitModel, guide: RecognitionGuide, network: nn.Module):
    """The players of :func:`ppvae.train`."""
    weights = {"c": config.lambda_class} if config.classes else {}
    weights |= {"k": config.lambda_codes} if config.codes else {}
    own = ppvae.adam(config.learning_rate, betas=(0.5, 0.999))
    adversary = ppvae.adam(config.adversary_learning_rate, betas=(0.5, 0.999))
    if config.gan == "info-wgan-gp":
        return ppvae.info_wgan_gp(model, guide, network, weights, optimizer=own, critic_optimizer=adversary)
    return ppvae.info_gan(model, guide, network, weights, optimizer=own, discriminator_optimizer=adversary)


def train(config: Config, players, guide: RecognitionGuide, splits: Splits, folder: Path, seed: int) -> list[dict]:
    """Train in the run folder. Returns one row of numbers for each epoch."""
    epoch = min(EPOCH, config.steps)
    return ppvae.train(
        players,
        splits.train.unlabelled(),
        epochs=config.steps // epoch,
        batch_size=Batching(config.batch_size, steps_per_epoch=epoch),
        evaluate=validated(config, guide, splits.validation),
        run_dir=RunDir(folder, resume=True),
        device=config.device,
        seed=seed,
    ).metrics


def validated(config: Config, guide: RecognitionGuide, data: Dataset | None) -> Callable[[], dict] | None:
    """The agreement on validation images, after each epoch; None where there are no labels."""
    if data is None or data.y is None or not config.classes:
        return None
    data = data.to(resolve_device(config.device))
    return lambda: {"validation_agreement": agreement(guide, data, config.classes)["agreement"]}


def agreement(guide: RecognitionGuide, data: Dataset, classes: int) -> dict:
    """Share of the images of which the recognised class is their label, with the best assignment of classes to labels.

    Returns it as "agreement", and the label of each class as "assignment", -1 where there are more classes than labels.
    """
    recognised = ppvae.predict(guide, data.grey(slice(None)), site="c").argmax(-1)
    counts = torch.zeros(classes, int(data.y.max()) + 1, device=data.y.device)
    counts.index_put_((recognised, data.y), torch.ones_like(recognised, dtype=counts.dtype), accumulate=True)
    rows, columns = linear_sum_assignment(-counts.cpu().numpy())
    assigned = dict(zip(rows.tolist(), columns.tolist(), strict=True))
    share = sum(counts[pair].item() for pair in assigned.items()) / len(data)
    return {"agreement": share, "assignment": [assigned.get(value, -1) for value in range(classes)]}


def disentangled(config: Config, model: ImplicitModel, guide: RecognitionGuide, data: Dataset, seed: int) -> dict:
    """All metrics of the continuous codes, and of these and the probabilities of the classes."""
    device = resolve_device(config.device)
    model, guide = model.to(device), guide.to(device)
    kinds: dict[str, Representation] = {}
    if config.codes:
        kinds["codes"] = represent(model, guide, data, site="k", batch_size=500, progress=True)
    if config.classes:
        kinds["codes and classes"] = with_classes(kinds.get("codes"), guide, data)
    options = {"leave_out": (*config.leave_out, "aggregate"), "seed": seed, "progress": True}
    return {name: score(codes, **options).to_dict() for name, codes in kinds.items()}


def with_classes(codes: Representation | None, guide: RecognitionGuide, data: Dataset) -> Representation:
    """The codes, and the probabilities of the classes as further elements."""
    device = next(guide.parameters()).device
    parts = [data.rows(index).to(device) for index in torch.arange(len(data)).split(5000)]
    probabilities = torch.cat([ppvae.predict(guide, x, site="c").cpu() for x in parts])
    joined = probabilities if codes is None else torch.cat([codes.codes, probabilities], 1)
    return Representation(data.factors, joined)


def information(config: Config, metrics: list[dict]) -> dict[str, list]:
    """The bound of the mutual information of each code in each epoch, in nats, and the "step" at its end.

    A code with a weight of 0 is left out: the log has the weighted bounds.
    """
    weights = {"c": config.lambda_class, "k": config.lambda_codes}
    bounds = {
        name: [-row[f"information/{name}"] / weight for row in metrics]
        for name, weight in weights.items()
        if weight and f"information/{name}" in metrics[-1]
    }
    return {"step": [row["step"] for row in metrics], **bounds}


def print_table(config: Config, found: list[dict]) -> None:
    title = f"{config.data}, {config.gan}, {config.steps} steps of {config.batch_size} images"
    table = Table("", *(f"seed {report['seed']}" for report in found), title=title)
    for name, values in rows(found).items():
        table.add_row(name, *("" if value is None else f"{value:.3f}" for value in values))
    table.add_row("seconds of training", *(f"{report['training_seconds']:.0f}" for report in found))
    Console().print(table)


def rows(found: list[dict]) -> dict[str, list[float | None]]:
    """The numbers of the table by their name, one for each report."""
    shown = {f"information of {name}, nats": [r["information"].get(name) for r in found] for name in ("c", "k")}
    if "agreement" in found[0]:
        shown["agreement with the class, test images"] = [report["agreement"] for report in found]
    for kind, scores in found[0].get("metrics", {}).items():
        for name in (each for each in SHOWN if each in scores):
            shown[f"{name.replace('_', ' ')}, {kind}"] = [report["metrics"][kind][name] for report in found]
    return {name: values for name, values in shown.items() if any(value is not None for value in values)}


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
