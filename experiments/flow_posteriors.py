"""Which flow gives the tighter bound and the better log p(x), on MNIST (nats) and on Frey faces (bits/dim).

Claim: van den Berg et al. 2018 ("Sylvester Normalizing Flows for Variational Inference"): a guide with a flow has a
tighter bound, and leads to a better model, than a guide without one. Orthogonal Sylvester flows are best on MNIST,
planar flows on Frey faces. The published values are noted from memory; check them before quoting them.

The published NLL is an upper bound, by the weights of the guide. The table has that bound of our guides, and the NLL by
weights of a Gaussian that is fitted to the posterior of each image, with the share of the images for which it failed.

Shortened for a CPU; only the order of the guides is comparable with the paper's:

                          here                                          paper
    networks              300 and 300 ReLU units, z of 40               gated convolutions, z of 64
    autoregressive maps   64 units                                      320 units
    training              tens of epochs of Adam                        Adamax until the validation bound stops rising,
                                                                        after 100 epochs of KL warm-up
    log p(x)              1,000 particles, 1,000 images                 5,000 particles, all images
    MNIST                 binarized anew for each minibatch             binarized once
    Frey faces            batches of 20, discretised logistic           batches of 100, categorical over 256 unordered
                          likelihood with a scale for each pixel        levels

    python experiments/flow_posteriors.py                               # MNIST
    python experiments/flow_posteriors.py --data freyfaces
    python experiments/flow_posteriors.py --guides none spline coupling householder

A finished guide is not trained again; an interrupted one is resumed. Writes to runs/flow-posteriors/DATA, for each
guide: checkpoints (the epoch with the best validation bound is scored), metrics.jsonl, report.json,
per_datum.safetensors, images.png; and table.json, bounds.png.
"""

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file, save_file
from torch import Tensor

import ppvae
from ppvae import cli, guides, plots
from ppvae.data import Dataset, Splits, load
from ppvae.distributions.likelihoods import Bernoulli, DiscretizedLogistic
from ppvae.guides import FlowGuide, MeanFieldGaussian
from ppvae.models import GaussianVAE
from ppvae.nn import MLP
from ppvae.training import RunDir, environment, load_checkpoint, resolve_device
from ppvae.training.study import finished, write_report

PUBLISHED = {  # -ELBO and NLL by data and guide: van den Berg et al. 2018, noted from memory
    "mnist": {"none": (86.55, 82.14), "planar": (86.06, 81.91), "iaf": (84.20, 80.79), "sylvester": (83.32, 80.22)},
    "freyfaces": {"none": (4.53, 4.40), "planar": (4.40, 4.31), "iaf": (4.47, 4.38), "sylvester": (4.51, 4.39)},
}
SCORES = {"negative_elbo": "-ELBO", "guide_nll_bound": "guide's bound on NLL", "nll": "NLL"}
FLOWS = {
    "planar": guides.planar,
    "iaf": guides.inverse_autoregressive,
    "sylvester": guides.sylvester,
    "coupling": guides.affine_coupling,
    "spline": guides.neural_spline,
    "householder": guides.householder,
}
DEFAULTS = {  # for the settings that are None in Config
    "mnist": {"epochs": 25, "batch_size": 100, "learning_rate": 1e-3},
    "freyfaces": {"epochs": 100, "batch_size": 20, "learning_rate": 5e-4},
    "digits": {"epochs": 100, "batch_size": 20, "learning_rate": 1e-3},
}
Name = Literal["none", "planar", "iaf", "sylvester", "coupling", "spline", "householder"]


@dataclass(frozen=True)
class Config:
    """Settings of the table."""

    data: Literal["mnist", "freyfaces", "digits"] = "mnist"
    guides: tuple[Name, ...] = ("none", "planar", "iaf", "sylvester")
    """"none" is the diagonal Gaussian that the flows start from."""
    flows: int = 4
    sylvester_columns: int = 8
    """Columns of Q in orthogonal Sylvester flows."""
    latent_dim: int = 40
    context_dim: int = 64
    """Length of the vector that the encoder gives to a flow, in addition to the Gaussian's parameters."""
    hidden: tuple[int, ...] = (300, 300)
    """Layers of the encoder, and in reverse order of the decoder."""
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    """None for epochs, batch_size or learning_rate: the value in ``DEFAULTS``."""
    test_images: int = 1000
    """Test images for the NLL. The ELBO is computed on all test images."""
    test_particles: int = 1000
    """Particles for the NLL and for the guide's bound on it."""
    bound_particles: int = 20
    """Draws over which the bound of an image is averaged."""
    seed: int = 0
    device: str = "auto"
    out: Path = Path("runs/flow-posteriors")


def main(config: Config) -> list[dict]:
    config = resolved(config)
    splits, out = load(config.data), config.out / config.data
    for name in config.guides:
        if not finished(out / name, settings(config)):
            run(config, name, splits)
    reports = with_differences(out, settings(config))
    (out / "table.json").write_text(json.dumps(reports, indent=2, allow_nan=False) + "\n")
    picture(reports).savefig(out / "bounds.png", dpi=120)
    print_table(reports)
    return reports


def settings(config: Config) -> dict:
    """The settings that all guides of one table have in common."""
    own = ("guides", "device", "out")
    return {name: value for name, value in asdict(config).items() if name not in own} | {"log_p": "fitted"}


def resolved(config: Config) -> Config:
    """The settings with the defaults of the data filled in."""
    return replace(config, **{n: v for n, v in DEFAULTS[config.data].items() if getattr(config, n) is None})


def run(config: Config, name: Name, splits: Splits) -> None:
    folder, device = config.out / config.data / name, resolve_device(config.device)
    Console().print(f"run folder {folder}")
    train, test = splits.train.unlabelled(), splits.test.unlabelled()
    test = test if is_grey(test) else test.binarized(config.seed)  # the same for every guide
    torch.manual_seed(config.seed)
    model, guide = (part.to(device) for part in build_pair(config, name, train))
    result = ppvae.fit(
        model,
        guide,
        ppvae.ELBO(analytic_kl=False),  # a closed-form KL would favour the guide that has one
        train,
        epochs=config.epochs,
        batch_size=config.batch_size,
        optimizer=ppvae.adam(config.learning_rate),
        validation=splits.validation.unlabelled(),
        run_dir=RunDir(folder, resume=True),
        device=config.device,
        seed=config.seed,
    )
    best = load_checkpoint(folder / "best.safetensors", model, guide)
    found, means = scores(config, model, guide, test)
    save_file(found, folder / "per_datum.safetensors")
    images(model, guide, test.rows(slice(0, 10)).to(device)).savefig(folder / "images.png", dpi=120)
    report = {"guide": name, **settings(config), **means}
    report |= {"best_epoch": best["epoch"], "training_seconds": result.metrics[-1]["seconds"], **environment(device)}
    write_report(folder, report)


def build_pair(config: Config, name: Name, train: Dataset):
    shape, dim, context = train.event_shape, config.latent_dim, config.context_dim
    flows = name != "none"
    decoder = MLP(dim, config.hidden[::-1], shape)  # built first: the same initial weights for every guide
    encoder = MLP(shape, config.hidden, 2 * dim + context * flows)
    initialise(encoder, decoder, train, dim)
    likelihood = DiscretizedLogistic(256, scale=0.05, shape=shape) if is_grey(train) else Bernoulli()
    options = {"rank": config.sylvester_columns} if name == "sylvester" else {}
    guide = FlowGuide(encoder, FLOWS[name](dim, context, config.flows, **options), dim) if flows else None
    return GaussianVAE(decoder, dim, likelihood), guide or MeanFieldGaussian(encoder)


def initialise(encoder: MLP, decoder: MLP, train: Dataset, dim: int) -> None:
    """Set initial weights: the decoder's last bias is the mean image or its logit, the encoder centres and scales
    pixels, and the scale of q is exp(-2).

    With default weights the scale of q is 1, which hides the codes. The decoder then learns to ignore them, either for
    good (Frey faces, 6.5 bits/dim) or for a number of epochs that differs between guides (MNIST, 206 nats).
    """
    grey = train.grey(slice(None)).flatten(1)
    mean = grey.mean(0)
    with torch.no_grad():
        decoder.layers[-1].bias.copy_(mean if is_grey(train) else mean.clamp(0.001, 0.999).logit())
        encoder.layers[0].weight.div_(grey.std(0).clamp(min=0.1))
        encoder.layers[0].bias.sub_(encoder.layers[0].weight @ mean)
        encoder.layers[-1].bias[dim : 2 * dim] -= 2


def is_grey(data: Dataset) -> bool:
    return data.binarization == "none"


def scores(config: Config, model, guide, test: Dataset) -> tuple[dict[str, Tensor], dict]:
    """``SCORES`` of each image, in nats, with k-hat of the NLL; and the numbers of the report."""
    x, common = test.rows(slice(None)), {"seed": config.seed, "progress": True}
    elbo = ppvae.log_marginal(model, guide, x, proposal=None, num_particles=config.bound_particles, **common).bound(1)
    common |= {"num_particles": config.test_particles, "keep_weights": False}
    log_p = ppvae.log_marginal(model, guide, x[: config.test_images], **common)
    found = {"negative_elbo": -elbo, "guide_nll_bound": -log_p.guide.value, "nll": -log_p.value}
    report = {
        "dimensions": math.prod(test.event_shape),
        **{key: values.mean().item() for key, values in found.items()},
        "nll_simulation_error": log_p.simulation_error,
        "nll_failed": None if math.isnan(log_p.khat_bad) else log_p.khat_bad,
        "nll_is_upper_bound": not log_p.is_reliable,
        "guide_khat_bad": None if math.isnan(log_p.guide.khat_bad) else log_p.guide.khat_bad,
        "images_with_nll": len(log_p.value),
    }
    return found | {"khat": log_p.khat}, report


def with_differences(out: Path, shared: dict) -> list[dict]:
    """The reports of all finished guides with their differences from "none", paired over images; in nats.

    The standard error of a difference is sd(differences) / sqrt(number of images).
    """
    folders = [out / name for name in ("none", *FLOWS) if finished(out / name, shared)]
    reports = [json.loads((folder / "report.json").read_text()) for folder in folders]
    if out / "none" not in folders:
        return reports
    none = load_file(out / "none" / "per_datum.safetensors")
    for report, folder in zip(reports, folders, strict=True):
        own = load_file(folder / "per_datum.safetensors")
        for key in SCORES:
            delta = own[key] - none[key]
            report[f"{key}_less_none"] = delta.mean().item()
            report[f"{key}_less_none_standard_error"] = delta.std().item() / len(delta) ** 0.5
    return reports


def unit(report: dict) -> tuple[str, float]:
    """The unit in which scores of the data are published, and its value for one nat."""
    return ("bits/dim", 1 / (report["dimensions"] * math.log(2))) if report["data"] == "freyfaces" else ("nats", 1.0)


def print_table(reports: list[dict]) -> None:
    one = reports[0]
    title = f"{one['data']}, {one['epochs']} epochs, {unit(one)[0]}: NLL by {one['test_particles']} particles, "
    title += (
        f"{one['images_with_nll']} images, by Gaussians fitted to their posteriors; failed: k-hat is bad; ≤: upper "
    )
    title += "bound, since more than 5% failed" + "; published, from memory, below" * (one["data"] in PUBLISHED)
    heads = [head for label in SCORES.values() for head in (label, "minus none's")]
    published = PUBLISHED.get(one["data"], {})
    table = Table("guide", *heads, "failed", "guide's k-hat bad", "best epoch", title=title)
    for report in reports:
        table.add_row(
            report["guide"],
            *(cell for key in SCORES for cell in shown(report, key)),
            *("" if report[key] is None else f"{report[key]:.0%}" for key in ("nll_failed", "guide_khat_bad")),
            str(report["best_epoch"]),
        )
        if report["guide"] in published:
            pairs = zip(published[report["guide"]], published["none"], strict=True)
            cells = (text for value, none in pairs for text in (f"{value:.2f}", f"{value - none:+.2f}"))
            table.add_row("", *(f"[dim]{text}" for text in cells))
    Console().print(table)


def shown(report: dict, key: str) -> tuple[str, str]:
    """The cells of a score and of its difference from "none", in the unit of the data."""
    name, factor = unit(report)
    digits = 3 if name == "bits/dim" else 2
    mark = "≤ " * (key == "nll" and report["nll_is_upper_bound"])
    value, less = f"{mark}{factor * report[key]:.{digits}f}", report.get(f"{key}_less_none")
    if less is None or report["guide"] == "none":
        return value, ""
    error = report[f"{key}_less_none_standard_error"]
    return value, f"{factor * less:+.{digits}f} ± {factor * error:.{digits}f}"


def picture(reports: list[dict]) -> Figure:
    """The scores of each guide with the errors of the differences from "none", and the published values."""
    figure = Figure(figsize=(9, 1.5 + 0.4 * len(reports)), layout="constrained")
    ours, theirs = figure.subplots(1, 2, sharey=True)
    name, factor = unit(reports[0])
    published = PUBLISHED.get(reports[0]["data"], {})
    for row, report in enumerate(reports):
        for index, key in enumerate(SCORES):
            error = factor * report.get(f"{key}_less_none_standard_error", 0.0)
            ours.errorbar(factor * report[key], row, xerr=error, fmt="o", capsize=3, color=f"C{index}")
        for index, value in enumerate(published.get(report["guide"], ())):
            theirs.plot(value, row, "o", color=f"C{index}", mfc="w")
    ours.set(yticks=range(len(reports)), yticklabels=[r["guide"] for r in reports], title="ppvae", xlabel=name)
    theirs.set(title="published, from memory", xlabel=name)
    ours.invert_yaxis()
    upper_bound = any(report["nll_is_upper_bound"] for report in reports)
    labels = [*list(SCORES.values())[:2], "NLL, an upper bound" if upper_bound else "NLL"]
    figure.legend(ours.containers[: len(SCORES)], labels, loc="outside upper center", ncols=len(SCORES))
    return figure


def images(model, guide, x: Tensor) -> Figure:
    """Test images and their reconstructions; means and draws of new images."""
    with torch.no_grad():
        z = ppvae.draw(model, guide, x).guide["z"].value.reshape(len(x), -1)
        reconstructed = model.decode(z, x.dim() - 1).mean
        new = model.decode(model.prior(x).sample((len(x),)), x.dim() - 1)
        rows = torch.stack([x, reconstructed, new.mean, new.sample()])
    return plots.image_grid(rows, ["test image", "reconstruction", "new, mean", "new, draw"])


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
