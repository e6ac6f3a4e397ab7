"""Semi-supervised MNIST: a classifier trained with 100 labels, and log p(x) with its two errors.

Claim: with 100 labels, Kingma et al. 2014 ("Semi-supervised Learning with Deep Generative Models", table 1) report test
accuracies of .880 (M2) and .967 (M1+M2), and Maaloe et al. 2016 ("Auxiliary Deep Generative Models") .990 (ADGM) and
.987 (SDGM). This script trains one pair end to end: M2, p(y) p(z) p(x | y, z), with a small convolutional classifier as
q(y | x) and q(z | x, y) for the style, or one of the pairs with an auxiliary variable (ssvae_pairs.py), where q(y | x)
is the mean of q(y | a, x) over 100 draws of q(a | x). Every class is summed exactly.

Where the guide's weights of an image are unreliable, log p(x) is estimated with a Gaussian fitted to the posterior of
that image. The guide's own bounds are in the table and in bounds.png.

    python experiments/ssvae_mnist.py                        # 100 labels
    python experiments/ssvae_mnist.py --labels 1000 --seed 3
    python experiments/ssvae_mnist.py --pair adgm
    python experiments/ssvae_mnist.py --data digits --epochs 5

Writes to the run folder: config.json, metrics.jsonl, last.safetensors, best.safetensors, report.json and figures (PNG).
"""

import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table
from schedules import half_cosine, steps_of
from ssvae_figures import name_of, save_figures
from ssvae_pairs import build_pair, num_draws

import ppvae
from ppvae import cli
from ppvae.data import Dataset, Splits, hide_labels, load
from ppvae.errors import DataError
from ppvae.evaluation import LogMarginal, khat_limit
from ppvae.evaluation.likelihood.pareto import MIN_WEIGHTS
from ppvae.training import Batching, RunDir, Validation, environment, resolve_device
from ppvae.training.study import write_report

console = Console()


@dataclass(frozen=True)
class Config:
    """Settings of one run."""

    data: Literal["auto", "mnist", "digits"] = "auto"
    """auto: MNIST if it is in the data folder or can be downloaded, otherwise the embedded 8x8 digits."""
    labels: int = 100
    """Labelled training images, the same number in each class."""
    pair: Literal["m2", "adgm", "sdgm"] = "m2"
    """m2, or a pair with an auxiliary variable a: adgm, where x does not depend on a, or sdgm, where it does."""
    guide: Literal["label-style", "label"] = "label-style"
    """Of m2: q(y|x) q(z|x,y), or q(y|x) q(z|x). Samples show their class more often with label-style."""
    objective: Literal["elbo", "iwae"] = "elbo"
    """The bound. iwae has 5 particles and trains q(y|x) by the labels alone."""
    alpha: float = 10.0
    """Weight of the mean classification loss of the labelled images, relative to the bound per image."""
    consistency: float = 10.0
    """Weight of the classifier's disagreement with itself on unlabelled images; 0 removes the term."""
    generated: float = 2.0
    """Weight of the loss of reading each class in its samples, relative to the bound per image; 0 removes the term."""
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
    log_p_images: int = 100
    """Test images on which log p(x) is estimated."""
    log_p_particles: int = 1000
    """Importance weights per image."""
    smoke: bool = False
    """One epoch on 1,000 images, to test that everything runs."""


def main(config: Config) -> dict:
    check(config)
    if config.smoke:
        config = replace(config, epochs=1, log_p_images=5, log_p_particles=100)
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
    marginal = log_p(config, model, guide, test)
    report = {
        "data": name,
        "training_seconds": result.metrics[-1]["seconds"],
        "seconds": seconds,
        **{key: value for key, value in asdict(config).items() if key not in ("data", "out", "resume")},
        **scores(config, model, guide, test),
        **log_p_scores(marginal),
        **environment(device),
    }
    save_figures(model, guide, test, result.metrics, marginal, folder, num_draws(config))
    write_report(folder, report)
    print_table(report)
    console.print(f"report and figures in {folder}")
    return report


def check(config: Config) -> None:
    """Raise ValueError for settings that cannot work, before anything runs."""
    sizes = ("labels", "epochs", "batch_size", "labelled_per_step", "log_p_images", "log_p_particles")
    if config.pair != "m2" and config.guide == "label":
        raise ValueError(f"expected --guide label with --pair m2 alone, got --pair {config.pair}")
    for name in (*sizes, "learning_rate"):
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
    stem = f"{'ssvae' if config.pair == 'm2' else config.pair}-{name}-{config.labels}labels-seed{config.seed}" + (
        "-smoke" if config.smoke else ""
    )
    existing = sorted(Path("runs").glob(f"{stem}-[0-9]*"), key=lambda path: int(path.name.rsplit("-", 1)[1]))
    if config.resume and existing:
        return existing[-1]
    return Path("runs") / f"{stem}-{int(existing[-1].name.rsplit('-', 1)[1]) + 1 if existing else 1}"


def train_pair(config: Config, model, guide, train: Dataset, validation: Dataset, folder: Path) -> ppvae.FitResult:
    labelled = min(config.labelled_per_step, config.labels)
    batch_size = min(config.batch_size, len(train) - config.labels)
    steps = steps_of(config.epochs, len(train) - config.labels, batch_size)
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
    takes its mean over all images of a step. ``generated`` weights a mean over as many samples as images.
    """
    bound = ppvae.ELBO() if config.objective == "elbo" else ppvae.IWAE(num_particles=5)
    objective = bound + ppvae.ClassifierLoss(config.alpha * (unlabelled + labelled) / labelled)
    if config.consistency:
        objective += ppvae.Consistency(config.consistency * (unlabelled + labelled) / unlabelled)
    if config.generated:
        objective += ppvae.GeneratedLabels(config.generated)
    return objective


def log_p(config: Config, model, guide, test: Dataset) -> LogMarginal:
    """log p(x) of the first ``log_p_images`` test images, binarized once."""
    x = test.unlabelled().take(slice(0, config.log_p_images)).binarized(config.seed)
    return ppvae.log_marginal(model, guide, x, num_particles=config.log_p_particles, seed=config.seed, progress=True)


def scores(config: Config, model, guide, test: Dataset) -> dict[str, float]:
    """Accuracy and ELBO of all test images."""
    elbo = ppvae.evaluate_loss(ppvae.ELBO(), model, guide, test.unlabelled().binarized(config.seed), seed=config.seed)
    accuracy = ppvae.accuracy(guide, test, num_draws=num_draws(config))
    return {"test_accuracy": accuracy, "test_images": len(test), "test_elbo": -elbo}


def log_p_scores(marginal: LogMarginal) -> dict[str, float | int | bool | str | None]:
    """log p(x) with its two errors and diagnostics, and the guide's own bound on the same images; None for NaN."""
    numbers = {
        "test_log_p": marginal.mean,
        "test_log_p_simulation_error": marginal.simulation_error,
        "test_log_p_sampling_error": marginal.sampling_error,
        "khat_bad": marginal.khat_bad,
        "guide_bound": marginal.guide.mean,
        "guide_khat_bad": marginal.guide.khat_bad,
    }
    return {
        **{name: None if math.isnan(number) else number for name, number in numbers.items()},
        "test_log_p_is_lower_bound": not marginal.is_reliable,
        "fitted_images": marginal.num_fitted,
        "failed_images": marginal.num_failed,
        "not_fitted": marginal.not_fitted,
    }


def print_table(report: dict) -> None:
    size = f"{report['log_p_particles']} particles, {report['log_p_images']} test images"
    khat, share = khat_cells(report["khat_bad"], report["log_p_particles"])
    _, guide_share = khat_cells(report["guide_khat_bad"], report["log_p_particles"])
    title = f"{report['pair']} on {report['data']}, {report['labels']} labels, seed {report['seed']}; nats per image"
    table = Table("score", "value", title=title)
    table.add_row(f"accuracy ({report['test_images']} test images)", f"{report['test_accuracy']:.4f}")
    table.add_row(f"ELBO ({report['test_images']} test images)", f"{report['test_elbo']:.2f}")
    table.add_section()
    name = name_of(not report["test_log_p_is_lower_bound"])
    table.add_row(f"{name} ({size})", f"{report['test_log_p']:.2f}")
    table.add_row("  ± simulation error", cell(report["test_log_p_simulation_error"], ".3f", "needs two particles"))
    table.add_row("  ± error over images", cell(report["test_log_p_sampling_error"], ".2f", "needs two images"))
    table.add_row(f"  {khat}", share)
    table.add_row("  images with a fitted proposal", fitted(report))
    table.add_section()
    table.add_row(f"guide's bound ({size})", f"{report['guide_bound']:.2f}")
    table.add_row(f"  its weights: {khat}", guide_share)
    table.add_section()
    table.add_row("seconds of training", f"{report['training_seconds']:.0f}")
    console.print(table)


def cell(number: float | None, form: str, missing: str) -> str:
    """A number, or what it needs if there is none."""
    return missing if number is None else f"{number:{form}}"


def khat_cells(khat_bad: float | None, particles: int) -> tuple[str, str]:
    """The share of images up to the k-hat limit."""
    if khat_bad is None:
        return "images within the k-hat limit", f"needs {MIN_WEIGHTS} particles"
    return f"images with k-hat up to {khat_limit(particles):.2f}", f"{1 - khat_bad:.0%}"


def fitted(report: dict) -> str:
    """How many images have a fitted proposal, and how many have a bad k-hat in the end; or why there is no proposal."""
    if report["not_fitted"]:
        return f"none: {report['not_fitted']}"
    return f"{report['fitted_images']}; {report['failed_images']} failed"


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
