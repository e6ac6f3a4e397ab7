"""Predict three, two or one quadrants of a digit from the rest: a conditional VAE and a network without latents.

Claim: Sohn, Lee and Yan 2015 ("Learning Structured Output Representation using Deep Conditional Generative Models",
section 5.1; values noted from memory), and Pyro's tutorial on the conditional VAE: with a latent vector the hidden
quadrants of MNIST have a much higher likelihood than with a network that predicts each pixel by itself, and its samples
are sharp and differ where the network's prediction is a blurred mean.

    network:  p(x | seen) = prod_d p(x_d | f_d(seen))
    CVAE:     p(x | seen) = int p(x | z, seen) p(z | seen) dz,     guide q(z | x, seen)

x are the hidden pixels. The seen pixels are a condition: they stay grey and are not scored. One quadrant is seen at the
bottom left, two are the left half, three are all but the one at the bottom right.

Two tables, of the same pairs:

- Pyro's convention: -ELBO by 10 draws with *grey* values as targets of a Bernoulli likelihood. This is a cross-entropy
  and not a likelihood. It is at least the entropy of the pixels, which is printed.
- A likelihood: test images are binarized once, by the seed. log p(x | seen) by importance sampling from the guide, and
  from a Gaussian that is fitted to the posterior where k-hat or the effective sample size leaves the guide in doubt.

Training data are binarized anew for each minibatch. The epoch with the lowest validation loss (10,000 of the 60,000
training images) is used. Pyro's tutorial stops early on the test set. Pyro's decoder reads z alone; here it reads the
seen pixels as well.

    python experiments/cvae_quadrants.py
    python experiments/cvae_quadrants.py --seen 1 --epochs 20

A finished training is not repeated. Writes to the run folder, for each number of seen quadrants: two trainings,
report.json, samples.png; and table.json.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import pyro
import torch
from iwae_mnist import number
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from schedules import half_cosine, steps_of
from torch import Tensor, nn

import ppvae
from ppvae import LogMarginal, cli, plots
from ppvae.data import Dataset, Splits, load
from ppvae.distributions.likelihoods import Bernoulli
from ppvae.engine.isolation import forked_randomness
from ppvae.guides import MeanFieldGaussian
from ppvae.models import ConditionalVAE
from ppvae.nn import MLP, JointMLP
from ppvae.training import RunDir, environment, resolve_device
from ppvae.training.study import finished, reports, write_report

Pair = tuple[nn.Module, nn.Module]
PUBLISHED = {  # grey targets, nats, MNIST, by seen quadrants: (network, CVAE)
    "Pyro's tutorial": {1: (100.4, 71.8), 2: (61.9, 51.0), 3: (25.4, 24.2)},
    "Sohn et al., from memory": {1: (100.03, 68.62), 2: (62.14, 45.57), 3: (26.01, 20.97)},
}
PYROS_DRAWS = 10
SHOWN_IMAGES, SHOWN_DRAWS = 8, 8
HIDDEN_GREY = 0.35  # of hidden pixels in figures


@dataclass(frozen=True)
class Config:
    """Settings of the tables."""

    seen: tuple[int, ...] = (1, 2, 3)
    """Numbers of seen quadrants, from 1 to 3."""
    data: Literal["mnist", "digits"] = "mnist"
    latent_dim: int = 50
    hidden: tuple[int, ...] = (500, 500)
    epochs: int = 40
    network_epochs: int = 20
    batch_size: int = 128
    learning_rate: float = 1e-3
    """It falls to 0 on half a cosine."""
    images: int = 1000
    """Test images for log p(x | seen), at least 2; the values with grey targets are of all test images."""
    particles: int = 1000
    seed: int = 0
    device: str = "auto"
    out: Path = Path("runs/cvae-quadrants")


class PixelNetwork(ppvae.Model):
    """p(x | seen) with independent pixels and no latent; site "x"."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network, self.likelihood = network, Bernoulli()

    def forward(self, x: Tensor, y: Tensor | None = None, *, seen: Tensor) -> None:
        """Observe x (B, hidden pixels)."""
        with pyro.plate("data", len(x)):
            pyro.sample("x", self.likelihood(self.network(seen), event_dim=1), obs=x)


class NoLatents(ppvae.Guide):
    """The guide of a model without latents."""

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        """Draw nothing."""


def main(config: Config) -> list[dict]:
    if not set(config.seen) <= {1, 2, 3} or not config.seen:
        raise ValueError(f"expected --seen among 1, 2, 3, got {config.seen}")
    if config.images < 2:
        raise ValueError(f"expected at least 2 --images for a standard error, got {config.images}")
    splits = load(config.data)
    for quadrants in config.seen:
        if not finished(config.out / str(quadrants), settings(config)):
            run(config, quadrants, splits)
    found = [report for report in reports(config.out, settings(config)) if report["seen"] in config.seen]
    (config.out / "table.json").write_text(json.dumps(found, indent=2) + "\n")
    print_tables(found)
    return found


def settings(config: Config) -> dict:
    """The settings that all rows of the tables have in common."""
    return {name: value for name, value in asdict(config).items() if name not in ("seen", "device", "out")}


def run(config: Config, quadrants: int, splits: Splits) -> None:
    folder, device = config.out / str(quadrants), resolve_device(config.device)
    mask = hidden(splits.train.event_shape, quadrants)
    train, validation, test = (task(part, mask) for part in (splits.train, splits.validation, splits.test))
    found = {}
    for name, make, epochs in (("network", network, config.network_epochs), ("cvae", cvae, config.epochs)):
        Console().print(f"{quadrants} seen, {name}")
        torch.manual_seed(config.seed)
        pair = make(config, *sizes(mask))
        seconds = fit(config, pair, train, validation, epochs, folder / name)
        found[name] = {**scores(config, pair, test.to(device)), "training_seconds": seconds}
        if name == "network":
            blurred = pair[0]
    (model, _), few = pair, test.to(device).take(slice(0, SHOWN_IMAGES))
    samples(model, blurred, few, mask, config.seed).savefig(folder / "samples.png", dpi=120)
    report = {"seen": quadrants, **settings(config), **found, "entropy": entropy(test), **environment(device)}
    write_report(folder, report)


def hidden(shape: tuple[int, ...], quadrants: int) -> Tensor:
    """Which pixels are hidden, bool, for a number of seen quadrants."""
    mask, (height, width) = torch.ones(shape, dtype=torch.bool), shape
    mask[height // 2 :, : width // 2] = False
    if quadrants > 1:
        mask[:, : width // 2] = False
    if quadrants > 2:
        mask[: height // 2] = False
    return mask


def sizes(mask: Tensor) -> tuple[int, int]:
    """Numbers of hidden and of seen pixels."""
    return int(mask.sum()), int((~mask).sum())


def task(images: Dataset, mask: Tensor) -> Dataset:
    """The hidden pixels as x, and the grey values of the others as the condition "seen"."""
    x, seen = images.x[:, mask], images.grey(slice(None))[:, ~mask]
    return Dataset(x, binarization=images.binarization, levels=images.levels, name=images.name, seen=seen)


def network(config: Config, pixels: int, seen: int) -> Pair:
    return PixelNetwork(MLP(seen, config.hidden, pixels)), NoLatents()


def cvae(config: Config, pixels: int, seen: int) -> Pair:
    latent_dim = config.latent_dim
    prior = MLP(seen, config.hidden, 2 * latent_dim)
    model = ConditionalVAE(JointMLP([latent_dim, seen], config.hidden, pixels), latent_dim, "seen", prior=prior)
    return model, MeanFieldGaussian(JointMLP([pixels, seen], config.hidden, 2 * latent_dim), "seen")


def fit(config: Config, pair: Pair, train: Dataset, validation: Dataset, epochs: int, folder: Path) -> float:
    """Train a pair, load its best epoch, and return the seconds of training."""
    steps = steps_of(epochs, len(train), config.batch_size)
    result = ppvae.fit(
        *pair,
        ppvae.ELBO(),
        train,
        epochs=epochs,
        batch_size=config.batch_size,
        optimizer=ppvae.adam(config.learning_rate, schedule=half_cosine(steps)),
        validation=validation,
        run_dir=RunDir(folder, resume=True),
        device=config.device,
        seed=config.seed,
    )
    ppvae.load_checkpoint(folder / "best.safetensors", *pair)
    return result.metrics[-1]["seconds"]


def scores(config: Config, pair: Pair, test: Dataset) -> dict:
    """-ELBO with grey targets, and log p(x | seen) of images that are binarized once, in nats per image."""
    grey = Dataset(test.grey(slice(None)), **test.given)
    elbo = ppvae.ELBO(PYROS_DRAWS, analytic_kl=False)
    fixed = test.binarized(config.seed).take(slice(0, config.images))
    exact = isinstance(pair[1], NoLatents)
    weights = {"num_particles": 1, "proposal": None} if exact else {"num_particles": config.particles}
    found = ppvae.log_marginal(*pair, fixed, **weights, keep_weights=False, seed=config.seed, progress=True)
    return {
        "grey_loss": ppvae.evaluate_loss(elbo, *pair, grey, seed=config.seed),
        "nll": -found.mean,
        "nll_sampling_error": found.sampling_error,
        **({} if exact else trust(found)),
    }


def trust(found: LogMarginal) -> dict:
    """How far the estimates of log p(x | seen) can be believed."""
    return {
        "nll_simulation_error": found.simulation_error,
        "nll_is_upper_bound": not found.is_reliable,
        "guide_nll_bound": -found.guide.mean,
        "guide_khat_bad": number(found.guide.khat_bad),
        "failed": number(found.khat_bad),
        "fitted": found.num_fitted,
    }


def entropy(test: Dataset) -> float:
    """Mean entropy of the hidden pixels as independent Bernoulli variables, in nats: the least loss of grey targets."""
    p = test.grey(slice(None)).double()
    return -(p.xlogy(p) + (1 - p).xlogy(1 - p)).sum(1).mean().item()


@torch.no_grad()
def samples(model: nn.Module, blurred: nn.Module, few: Dataset, mask: Tensor, seed: int) -> Figure:
    """One image per row: what is seen, the image, the network's prediction, and draws of the CVAE, E[x | z, seen]."""
    batch = few.batch()
    seen = batch.given["seen"]
    guess = ppvae.reconstruct(blurred, NoLatents(), batch, seed=seed)
    repeated = {"seen": seen.repeat_interleave(SHOWN_DRAWS, 0)}
    drawn = mean_samples(model, repeated["seen"], seed).unflatten(0, (len(seen), SHOWN_DRAWS))
    grey = few.grey(slice(None))
    columns = [torch.full_like(grey, HIDDEN_GREY), grey, guess, *drawn.unbind(1)]
    images = torch.stack([whole(pixels, seen, mask) for pixels in columns], 1)
    names = ["seen", "image", "network", *(f"draw {i + 1}" for i in range(SHOWN_DRAWS))]
    figure = plots.image_grid(images.cpu(), (), names)
    figure.suptitle("network: E[x | seen]; draws: E[x | z, seen] at z ~ p(z | seen)", fontsize="medium")
    return figure


def mean_samples(model: nn.Module, seen: Tensor, seed: int) -> Tensor:
    """E[x | z, seen] at one draw z ~ p(z | seen) for each row."""
    with forked_randomness(seen.device, seed):
        z = model.latent_prior(seen, seen).sample()
    return model.decode(z, seen, event_dim=1).mean


def whole(pixels: Tensor, seen: Tensor, mask: Tensor) -> Tensor:
    """Images (B, H, W) from their hidden and their seen pixels."""
    images = seen.new_empty(len(seen), *mask.shape)
    images[:, mask], images[:, ~mask] = pixels, seen
    return images


def print_tables(found: list[dict]) -> None:
    one = found[0]
    published = PUBLISHED if one["data"] == "mnist" else {}
    heads = ["network", "CVAE", *(f"{source}: {name}" for source in published for name in ("network", "CVAE"))]
    title = f"{one['data']}: Pyro's convention, grey targets, -ELBO by {PYROS_DRAWS} draws, nats; all test images. "
    title += "seen: quadrants; entropy: of the pixels, the least possible value"
    table = Table("seen", *heads, "entropy", title=title)
    for row in found:
        ours = [f"{row[name]['grey_loss']:.2f}" for name in ("network", "cvae")]
        theirs = [f"{value:.2f}" for source in published.values() for value in source[row["seen"]]]
        table.add_row(str(row["seen"]), *ours, *theirs, f"{row['entropy']:.2f}")
    Console().print(table)
    print_likelihoods(found)


def print_likelihoods(found: list[dict]) -> None:
    one = found[0]
    title = f"{one['data']}: -log p(x | seen), nats, of {one['images']} test images binarized once; {one['particles']} "
    title += "weights. ± over images (simulation); ≤: upper bound, since the k-hat of more than 5% is bad"
    heads = ("network (exact)", "CVAE", "guide's bound", "k-hat bad: guide", "CVAE", "minutes: network", "CVAE")
    table = Table("seen", *heads, title=title)
    for row in found:
        exact, cvae = row["network"], row["cvae"]
        mark = "≤ " * cvae["nll_is_upper_bound"]
        table.add_row(
            str(row["seen"]),
            f"{exact['nll']:.2f} ± {exact['nll_sampling_error']:.2f}",
            f"{mark}{cvae['nll']:.2f} ± {cvae['nll_sampling_error']:.2f} ({cvae['nll_simulation_error']:.3f})",
            f"{cvae['guide_nll_bound']:.2f}",
            *("" if cvae[key] is None else f"{cvae[key]:.1%}" for key in ("guide_khat_bad", "failed")),
            *(f"{part['training_seconds'] / 60:.1f}" for part in (exact, cvae)),
        )
    Console().print(table)


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
