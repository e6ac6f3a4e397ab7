"""Semi-supervised MNIST: a classifier trained with 100 labels, and log p(x) with both of its errors.

Claim: with 100 labels, Kingma et al. 2014 ("Semi-supervised Learning with Deep Generative Models", table 1) report test
accuracies of .880 (M2) and .967 (M1+M2), and Maaloe et al. 2016 ("Auxiliary Deep Generative Models") .990 (ADGM). This
script trains one M2 pair end to end: p(y) p(z) p(x | y, z), with a small convolutional classifier as q(y | x). Every
class is summed exactly.

    python experiments/ssvae_mnist.py                        # 100 labels
    python experiments/ssvae_mnist.py --labels 1000 --seed 3
    python experiments/ssvae_mnist.py --data digits --epochs 5

Writes to the run folder: config.json, metrics.jsonl, last.safetensors, best.safetensors, report.json and figures (PNG).
"""

import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console
from rich.table import Table
from schedules import half_cosine
from torch import Tensor, nn

import ppvae
from ppvae import cli, plots
from ppvae.data import Dataset, Splits, hide_labels, load
from ppvae.errors import DataError
from ppvae.evaluation import khat_limit
from ppvae.guides import LabelGuide, LabelStyleGuide
from ppvae.models import SemiSupervisedVAE
from ppvae.nn import MLP, ConvClassifier, LabelledMLP, RandomWarp
from ppvae.training import Batching, RunDir, Validation, environment, resolve_device
from ppvae.training.study import write_report

LATENT_DIM = 50
HIDDEN = (500, 500)
CLASSES = 10
console = Console()


@dataclass(frozen=True)
class Config:
    """Settings of one run."""

    data: Literal["auto", "mnist", "digits"] = "auto"
    """auto: MNIST if it is in the data folder or can be downloaded, otherwise the embedded 8x8 digits."""
    labels: int = 100
    """Labelled training images, the same number in each class."""
    guide: Literal["label", "label-style"] = "label"
    """q(y|x) q(z|x), or q(y|x) q(z|x,y). Samples show their class clearly only with label-style."""
    objective: Literal["elbo", "iwae"] = "elbo"
    """The bound. iwae has 5 particles and trains q(y|x) by the labels alone."""
    alpha: float = 10.0
    """Weight of the mean classification loss of the labelled images, relative to the bound per image."""
    consistency: float = 10.0
    """Weight of the classifier's disagreement with itself on unlabelled images; 0 removes the term."""
    augment: bool = True
    """Train the classifier on small random warps of the images, labelled and unlabelled."""
    epochs: int = 8
    batch_size: int = 100
    """Unlabelled images per step."""
    labelled_per_step: int = 50
    learning_rate: float = 2e-3
    """Initial value; it falls to 0 on a half cosine."""
    seed: int = 0
    """Seed of the choice of labels, the initial weights, the order of the data and all sampling."""
    device: str = "auto"
    out: Path | None = None
    """Run folder; default: a new one in runs/."""
    resume: bool = False
    """Continue the run in the folder."""
    nll_images: int = 100
    """Test images on which log p(x) is estimated."""
    nll_particles: int = 1000
    smoke: bool = False
    """One epoch on 1,000 images, to test that everything runs."""


def main(config: Config) -> dict:
    check(config)
    if config.smoke:
        config = replace(config, epochs=1, nll_images=20, nll_particles=100)
    name, splits = choose_data(config)
    folder = run_folder(config, name)
    console.print(f"run folder {folder}")
    device = resolve_device(config.device)
    model, guide = build_pair(config, splits.train.event_shape, device)
    train = hide_labels(splits.train, config.labels, config.seed)
    started = time.perf_counter()
    result = train_pair(config, model, guide, train, splits.validation, folder)
    seconds = round(time.perf_counter() - started, 1)
    test = splits.test.to(device)
    report = {
        "data": name,
        "training_seconds": result.metrics[-1]["seconds"],
        "seconds": seconds,
        **{key: value for key, value in asdict(config).items() if key not in ("data", "out", "resume")},
        **scores(config, model, guide, test),
        **environment(device),
    }
    save_figures(model, guide, test, result.metrics, folder)
    write_report(folder, report)
    print_table(report)
    console.print(f"report and figures in {folder}")
    return report


def check(config: Config) -> None:
    """Raise ValueError for settings that cannot work, before anything runs."""
    positive = ("labels", "epochs", "batch_size", "labelled_per_step", "learning_rate", "nll_images", "nll_particles")
    for name in positive:
        if getattr(config, name) <= 0:
            raise ValueError(f"expected --{name.replace('_', '-')} above 0, got {getattr(config, name)}")


def choose_data(config: Config) -> tuple[str, Splits]:
    """The name and the splits of the data. With "auto", a missing MNIST is replaced by the digits, with a warning."""
    name = "mnist" if config.data == "auto" else config.data
    try:
        splits = load(name)
    except DataError as reason:
        if config.data != "auto":
            raise
        console.rule("[bold red]NOT MNIST: this run uses scikit-learn's 8x8 digits", style="bold red")
        console.print(reason)
        name, splits = "digits", load("digits")
    if config.smoke:
        splits = Splits(*(part.take(slice(0, 1000)) for part in (splits.train, splits.test, splits.validation)))
    return name, splits


def run_folder(config: Config, name: str) -> Path:
    """``config.out``, or a new numbered folder in runs/; with ``config.resume`` the last one."""
    if config.out is not None:
        return config.out
    stem = f"ssvae-{name}-{config.labels}labels-seed{config.seed}" + ("-smoke" if config.smoke else "")
    existing = sorted(Path("runs").glob(f"{stem}-[0-9]*"), key=lambda path: int(path.name.rsplit("-", 1)[1]))
    if config.resume and existing:
        return existing[-1]
    return Path("runs") / f"{stem}-{int(existing[-1].name.rsplit('-', 1)[1]) + 1 if existing else 1}"


def build_pair(config: Config, shape: tuple[int, ...], device: torch.device):
    torch.manual_seed(config.seed)
    classifier = ConvClassifier(shape, CLASSES)
    if config.augment:
        classifier = nn.Sequential(RandomWarp(), classifier)
    if config.guide == "label":
        guide = LabelGuide(classifier, MLP(shape, HIDDEN, 2 * LATENT_DIM))
    else:
        guide = LabelStyleGuide(classifier, LabelledMLP(shape, CLASSES, HIDDEN, 2 * LATENT_DIM))
    model = SemiSupervisedVAE(LabelledMLP(LATENT_DIM, CLASSES, HIDDEN, shape), LATENT_DIM, CLASSES)
    return model.to(device), guide.to(device)


def train_pair(config: Config, model, guide, train: Dataset, validation: Dataset, folder: Path) -> ppvae.FitResult:
    labelled = min(config.labelled_per_step, config.labels)
    batch_size = min(config.batch_size, len(train) - config.labels)
    steps = config.epochs * ((len(train) - config.labels) // batch_size)
    validation = validation.to(next(model.parameters()).device)
    return ppvae.fit(
        model,
        guide,
        build_objective(config, batch_size, labelled),
        train,
        epochs=config.epochs,
        batch_size=Batching(batch_size, labelled_per_step=labelled),
        optimizer=ppvae.adam(config.learning_rate, schedule=half_cosine(steps)),
        validation=Validation(
            validation.take(slice(0, 2000)),
            evaluate=lambda: {"validation_accuracy": ppvae.accuracy(guide, validation)},
        ),
        run_dir=RunDir(folder, resume=config.resume),
        device=config.device,
        seed=config.seed,
    )


def build_objective(config: Config, unlabelled: int, labelled: int) -> ppvae.Objective:
    """The bound and its terms, for that many rows per step.

    ``alpha`` and ``consistency`` weight means over the labelled and over the unlabelled images, while an objective
    takes its mean over all images of a step.
    """
    bound = ppvae.ELBO() if config.objective == "elbo" else ppvae.IWAE(num_particles=5)
    objective = bound + ppvae.ClassifierLoss(config.alpha * (unlabelled + labelled) / labelled)
    if config.consistency:
        objective += ppvae.Consistency(config.consistency * (unlabelled + labelled) / unlabelled)
    return objective


def scores(config: Config, model, guide, test: Dataset) -> dict[str, float]:
    """Scores of the test images. The NLL has two errors: of the simulation, and over images."""
    binary = test.unlabelled().binarized(config.seed)
    x = binary.rows(slice(0, config.nll_images))
    marginal = ppvae.log_marginal(model, guide, x, num_particles=config.nll_particles, seed=config.seed, progress=True)
    elbo = ppvae.evaluate_loss(ppvae.ELBO(), model, guide, binary, seed=config.seed)
    return {
        "test_accuracy": ppvae.accuracy(guide, test),
        "test_images": len(test),
        "test_elbo": -elbo,
        "test_nll": -marginal.mean,
        "test_nll_simulation_error": marginal.simulation_error,
        "test_nll_sampling_error": None if math.isnan(marginal.sampling_error) else marginal.sampling_error,
        "test_nll_is_upper_bound": not marginal.is_reliable,
        "khat_bad": None if math.isnan(marginal.khat_bad) else marginal.khat_bad,
    }


@torch.no_grad()
def save_figures(model, guide, test: Dataset, metrics: list[dict], folder: Path) -> None:
    model.eval()
    x = test.most_probable(slice(None))
    predicted = ppvae.predict(guide, x).argmax(-1)
    codes = ppvae.features(guide, x, predicted)
    figures = {
        "learning_curves": plots.learning_curves(metrics),
        "confusion": plots.confusion(test.y, predicted, CLASSES),
        "latent_space": plots.latent_space(codes[:5000], test.y[:5000]),
        "reconstructions": plots.image_grid(
            torch.stack([x[:12], decoded(model, codes[:12], predicted[:12])]), ["data", "reconstruction"]
        ),
        "class_samples": class_samples(model, template=codes),
        "analogies": analogies(model, x, codes, test.y),
    }
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=120)


def decoded(model, z: Tensor, y: Tensor) -> Tensor:
    """The mean images of p(x | y, z)."""
    return model.decode(z, y, event_dim=2).mean


def class_samples(model, template: Tensor, styles: int = 8):
    """A figure with one style z ~ p(z) per row and one class per column."""
    z = torch.randn(styles, 1, LATENT_DIM, generator=torch.Generator().manual_seed(0)).to(template)
    images = decoded(model, z.expand(-1, CLASSES, -1), torch.arange(CLASSES, device=z.device).expand(styles, -1))
    return plots.image_grid(images, [f"style {i + 1}" for i in range(styles)], [str(c) for c in range(CLASSES)])


def analogies(model, x: Tensor, codes: Tensor, y: Tensor):
    """A figure with the style of one test image per row, decoded with every class."""
    rows = torch.stack([(y == label).nonzero()[0, 0] for label in range(CLASSES)])
    images = decoded(model, codes[rows, None], torch.arange(CLASSES, device=x.device).expand(CLASSES, -1))
    return plots.image_grid(torch.cat([x[rows, None], images], 1), (), ["data", *map(str, range(CLASSES))])


def print_table(report: dict) -> None:
    title = f"{report['data']}, {report['labels']} labels, seed {report['seed']}"
    size = f"{report['nll_particles']} particles, {report['nll_images']} images"
    table = Table("score", "value", title=title)
    table.add_row(f"test accuracy ({report['test_images']} images)", f"{report['test_accuracy']:.4f}")
    table.add_row("test ELBO, nats per image", f"{report['test_elbo']:.2f}")
    bound = ", upper bound" if report["test_nll_is_upper_bound"] else ""
    table.add_row(f"test NLL{bound}, nats ({size})", f"{report['test_nll']:.2f}")
    table.add_row("  ± simulation error", f"{report['test_nll_simulation_error']:.2f}")
    over_images = report["test_nll_sampling_error"]
    table.add_row("  ± error over images", "needs two images" if over_images is None else f"{over_images:.2f}")
    table.add_row(*khat_cells(report))
    table.add_row("seconds of training", f"{report['training_seconds']:.0f}")
    console.print(table)


def khat_cells(report: dict) -> tuple[str, str]:
    if report["khat_bad"] is None:
        return "k-hat", "too few particles"
    return f"k-hat above {khat_limit(report['nll_particles']):.2f}", f"{report['khat_bad']:.0%} of the images"


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
