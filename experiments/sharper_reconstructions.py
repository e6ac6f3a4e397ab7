"""The same pair with three kinds of reconstruction: of pixels, of a network's features, and by a discriminator.

Claim: a squared error of pixels makes blurred images; a distance in the features of a network (Hou et al. 2017, "Deep
Feature Consistent Variational Autoencoder") or of a discriminator that is trained with the pair (Larsen et al. 2016,
"Autoencoding beyond pixels using a learned similarity metric", VAE-GAN) makes sharper ones, at a larger error.

    pixel         ELBO with Gaussian noise of a learned scale
    features      rate + feature_weight |f(x) - f(x~)|^2 / 2, f all stages of a classifier of the same data, frozen
    adversarial   the VAE-GAN: rate + distance in a layer of the discriminator + the discriminator's term, which is
                  shown reconstructions and samples

The table has, of test images:

    error         squared error of the reconstruction from the posterior mean, summed over the pixels
    agreement     share of the reconstructions that an independent classifier reads as the class of the image. It is
                  trained on warped training images, with other initial weights than the classifier of the features,
                  but of the same architecture.
    sharpness     variance over an image of its Laplacian (kernel 0 1 0 / 1 -4 1 / 0 1 0, inner pixels), mean over
                  images, divided by that of the test images (Pech-Pacheco et al. 2000, "Diatom autofocusing in
                  brightfield microscopy"). Isolated wrong pixels raise it too.
    confidence    of samples: mean of the largest class probability by that classifier
    classes       of samples: exp of the entropy of the mean class probabilities, 10 if all classes are equally frequent
    rate          KL(q(z | x) || p(z)), nats
    log p(x)      nats, a density of grey values. In the pixel row it is what training maximises a bound of. The other
                  objectives say nothing about noise: there the scale is fitted after training, and the figure is the
                  density of a likelihood that was not trained. "lower bound" where k-hat is bad for more than 5% of
                  the images.

    python experiments/sharper_reconstructions.py                       # about 20 minutes on one CPU core
    python experiments/sharper_reconstructions.py --data fashion_mnist --seed 1

A finished row is not trained again; an interrupted one is resumed. Writes to runs/sharper-reconstructions/DATA-seedN:
a folder for each row, table.json, images.png.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import class_samples
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from sharper_pairs import objectives, trained
from torch import Tensor, nn

import ppvae
from ppvae import cli, plots
from ppvae.data import Dataset, Splits, load
from ppvae.training import environment, resolve_device
from ppvae.training.study import finished, write_report

Kind = Literal["pixel", "features", "adversarial"]
NOT_OF_A_ROW = ("kinds", "columns", "device", "out")  # settings in which the rows of a table may differ
AT_ONCE = 1000  # images read by the classifier


@dataclass(frozen=True)
class Config:
    """Settings of the three rows."""

    data: Literal["mnist", "fashion_mnist", "digits"] = "mnist"
    kinds: tuple[Kind, ...] = ("pixel", "features", "adversarial")
    seed: int = 0
    latent_dim: int = 16
    epochs: int = 5
    batch_size: int = 64
    classifier_epochs: int = 1
    """Of the classifier that scores, and of the one whose features are compared."""
    feature_weight: float = 0.3
    """Of the distance in the classifier's features."""
    discriminator_feature_weight: float = 1.0
    """Of the distance in the discriminator's features."""
    adversarial_weight: float = 10.0
    discriminator_rate: float = 2e-4
    """Learning rate of the discriminator."""
    samples: int = 2000
    """From the prior."""
    log_p_images: int = 200
    particles: int = 1000
    columns: int = 14
    """Images in a row of the figure."""
    device: str = "auto"
    out: Path = Path("runs/sharper-reconstructions")


def main(config: Config) -> dict[str, Any]:
    check(config)
    splits, out = load(config.data, binarization="none"), config.out / f"{config.data}-seed{config.seed}"
    judge = classifier(config, splits.train, out / "judge", seed=config.seed)
    makers = objectives(
        config, splits.train.event_shape, classifier(config, splits.train, out / "features-of", seed=config.seed + 1000)
    )
    rows, images = {}, {}
    for kind in config.kinds:
        model, guide = trained(config, kind, makers[kind](), splits.train.unlabelled(), out / kind)
        rows[kind] = row(config, out / kind, model, guide, judge, splits)
        images[kind] = shown(config, model, guide, splits.test)
    table = {"data": numbers_of(judge, splits.test), **rows}
    (out / "table.json").write_text(json.dumps(table, indent=2, allow_nan=False) + "\n")
    picture(config, splits.test, images).savefig(out / "images.png", dpi=120)
    print_table(config, table)
    return table


def check(config: Config) -> None:
    if not config.kinds:
        raise ValueError("expected --kinds with at least one of pixel, features, adversarial, got none")
    if min(config.samples, config.log_p_images, config.columns) < 1:
        raise ValueError("expected --samples, --log-p-images and --columns of at least 1")


def classifier(config: Config, data: Dataset, folder: Path, seed: int) -> nn.Sequential:
    """A classifier of warped training images, trained in its own folder or read from there."""
    settings = class_samples.Config((), epochs=config.classifier_epochs, seed=seed, device=config.device, out=folder)
    return class_samples.trained(settings, data)


def row(
    config: Config, folder: Path, model: nn.Module, guide: nn.Module, judge: nn.Module, splits: Splits
) -> dict[str, Any]:
    """The numbers of one kind of reconstruction, computed once."""
    settings = {name: value for name, value in asdict(config).items() if name not in NOT_OF_A_ROW}
    if not finished(folder, settings):
        device = resolve_device(config.device)
        report = {**settings, **scores(config, model, guide, judge, splits.test.to(device)), **environment(device)}
        write_report(folder, report)
    return json.loads((folder / "report.json").read_text())


@torch.no_grad()
def scores(config: Config, model: nn.Module, guide: nn.Module, judge: nn.Module, test: Dataset) -> dict[str, Any]:
    x, few = test.grey(slice(None)), test.grey(slice(0, config.log_p_images))
    reconstructed = ppvae.reconstruct(model, guide, x)
    drawn = sampled_means(config, model, x)
    found = ppvae.log_marginal(model, guide, few, num_particles=config.particles, seed=config.seed)
    return {
        "error": (reconstructed - x).square().flatten(1).sum(1).double().mean().item(),
        "agreement": (class_probabilities(judge, reconstructed).argmax(-1) == test.y).double().mean().item(),
        "sharpness": (sharpness(reconstructed) / sharpness(x)).item(),
        "sample_sharpness": (sharpness(drawn) / sharpness(x)).item(),
        **read(judge, drawn),
        "rate": ppvae.evaluate_parts(ppvae.ELBO(), model, guide, x, seed=config.seed)["rate/z"],
        "noise": model.likelihood.log_scale.exp().item(),
        "log_p": found.mean,
        "log_p_error": found.sampling_error,
        "log_p_is_lower_bound": not found.is_reliable,
        "khat_bad": found.khat_bad,
    }


def numbers_of(judge: nn.Module, test: Dataset) -> dict[str, float]:
    """The same numbers of the test images themselves."""
    accuracy = class_samples.accuracy(judge, test)
    return {"error": 0.0, "agreement": accuracy, "sharpness": 1.0, **read(judge, test.grey(slice(None)))}


def read(judge: nn.Module, images: Tensor) -> dict[str, float]:
    """How sure the classifier is of images, and how many classes it finds in them."""
    probabilities = class_probabilities(judge, images).double()
    mean = probabilities.mean(0)
    entropy = -torch.special.xlogy(mean, mean).sum()
    return {"confidence": probabilities.amax(-1).mean().item(), "classes": entropy.exp().item()}


@torch.no_grad()
def class_probabilities(judge: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([judge(part).softmax(-1) for part in images.split(AT_ONCE)])


def sharpness(images: Tensor) -> Tensor:
    """Mean over images (N, H, W) of the variance of the Laplacian over the inner pixels of an image."""
    kernel = images.new_tensor([[0, 1, 0], [1, -4, 1], [0, 1, 0]]).reshape(1, 1, 3, 3)
    return nn.functional.conv2d(images.unsqueeze(1), kernel).flatten(1).var(1).mean()


def sampled_means(config: Config, model: nn.Module, template: Tensor) -> Tensor:
    """Mean images E[x | z] of z ~ p(z), by the seed."""
    z = torch.randn(config.samples, config.latent_dim, generator=torch.Generator().manual_seed(config.seed))
    return torch.cat([model.decode(part, template.dim() - 1).mean for part in z.to(template).split(AT_ONCE)])


@torch.no_grad()
def shown(config: Config, model: nn.Module, guide: nn.Module, test: Dataset) -> tuple[Tensor, Tensor]:
    """Reconstructions of the first test images, and samples."""
    x = test.grey(slice(0, config.columns)).to(next(model.parameters()))
    return ppvae.reconstruct(model, guide, x).cpu(), sampled_means(config, model, x)[: config.columns].cpu()


def picture(config: Config, test: Dataset, images: dict[str, tuple[Tensor, Tensor]]) -> Figure:
    """Test images, their reconstructions, and samples."""
    rows = {"test image": test.grey(slice(0, config.columns)).cpu()}
    rows |= {f"{kind}: reconstruction": found for kind, (found, _) in images.items()}
    rows |= {f"{kind}: sample": drawn for kind, (_, drawn) in images.items()}
    columns = min(map(len, rows.values()))
    figure = plots.image_grid(torch.stack([row[:columns] for row in rows.values()]), list(rows))
    figure.suptitle(f"{config.data}: mean images E[x | z] at the posterior mean of z, and at draws from the prior")
    return figure


def print_table(config: Config, table: dict[str, Any]) -> None:
    measures = ("error", "agreement", "sharpness", "samples: sharpness", "confidence", "classes", "rate", "log p(x)")
    title = f"{config.data}, {config.epochs} epochs, seed {config.seed}; log p(x) of {config.log_p_images} images, nats"
    columns = []
    for name, found in table.items():
        start = (f"{found['error']:.2f}", f"{found['agreement']:.2%}", f"{found['sharpness']:.2f}")
        drawn = f"{found['sample_sharpness']:.2f}" if "sample_sharpness" in found else ""
        read = (drawn, f"{found['confidence']:.3f}", f"{found['classes']:.1f}")
        rest = (f"{found['rate']:.1f}", log_p_cell(name, found)) if "rate" in found else ("", "")
        columns.append((*start, *read, *rest))
    names = ("test images" if name == "data" else name for name in table)
    shown = Table("", *names, title=f"{title} ± standard error over images")
    for cells in zip(measures, *columns, strict=True):
        shown.add_row(*cells)
    Console().print(shown)


def log_p_cell(kind: str, found: dict[str, Any]) -> str:
    number = f"{found['log_p']:.1f} ± {found['log_p_error']:.1f}"
    notes = ["lower bound"] if found["log_p_is_lower_bound"] else []
    notes += [] if kind == "pixel" else ["noise fitted afterwards"]
    return f"{number} ({', '.join(notes)})" if notes else number


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
