"""Reverse and forward KL on a posterior with two modes.

Claim: a Gaussian guide trained with the ELBO, KL(q || p), covers one mode. Trained on draws of the model, KL(p || q),
it covers both modes and the empty space between them. A mixture guide trained on draws of the model covers both modes
and nothing else (Bishop 2006, "Pattern Recognition and Machine Learning", figure 10.3). For log p(x) a guide that
covers all modes is better: importance weights cannot find a mode where q has no mass, and k-hat does not show the
missing mode.

The model:  z ~ N(0, I_2),  x ~ N((z_1^2, z_2), diag(0.25^2)).  The sign of z_1 is unknown. log p(x) is exact, by
quadrature.

    python experiments/kl_directions.py

Writes to the run folder: report.json and posterior.png.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import pyro
import torch
from matplotlib.figure import Figure
from pyro import distributions as dist
from rich.console import Console
from rich.table import Table
from schedules import half_cosine, steps_of
from torch import Tensor, nn

import ppvae
from ppvae import cli
from ppvae.distributions.gaussians import standard_normal
from ppvae.guides import FullRankGaussian, MixtureGuide
from ppvae.nn import MLP

NOISE = 0.25
HIDDEN = (64, 64)
BATCHES = 200  # in the training set


@dataclass(frozen=True)
class Config:
    """Settings of one run."""

    steps: int = 3000
    """Steps of Adam for each guide."""
    batch_size: int = 100
    learning_rate: float = 1e-3
    """Initial value; it falls to 0 on a half cosine."""
    data: int = 50
    """Data on which the guides are compared. All have x_1 > 1, where the two modes are separate."""
    particles: int = 2000
    seed: int = 0
    out: Path = Path("runs/kl-directions")


class Folded(ppvae.Model):
    """z ~ N(0, I_2), x ~ N((z_1^2, z_2), noise^2 I)."""

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", standard_normal(x, 2))
            mean = torch.stack([z[..., 0].square(), z[..., 1]], -1)
            pyro.sample("x", dist.Normal(mean, NOISE).to_event(1), obs=x)


def main(config: Config) -> dict:
    torch.manual_seed(config.seed)
    model = Folded()
    train = simulate(config.batch_size * BATCHES)
    x = simulate(20 * config.data)
    x = x[x[:, 0] > 1][: config.data]  # where the two modes are separate
    guides = {}
    for name, (guide, objective) in setups().items():
        fit(model, guide, objective, train, config)
        guides[name] = guide
    comparison = ppvae.compare(model, guides, x, num_particles=config.particles, seed=config.seed)
    exact = log_evidence(x)
    report = comparison.records()
    for name, record in report.items():
        record["lighter_side"] = lighter_side(guides[name], x)
        record["exact_log_p"] = exact.mean().item()
    config.out.mkdir(parents=True, exist_ok=True)
    (config.out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    picture(guides, torch.tensor([[1.0, 0.5]])).savefig(config.out / "posterior.png", dpi=120)
    comparison.print()
    print_sides(report)
    return report


def setups() -> dict[str, tuple[nn.Module, ppvae.Objective]]:
    """A guide and its objective for each row of the table."""
    gaussian, mixture = FullRankGaussian.num_features(2), MixtureGuide.num_features(2, 2)
    return {
        "Gaussian, KL(q || p)": (FullRankGaussian(MLP(2, HIDDEN, gaussian), 2), ppvae.ELBO(10)),
        "Gaussian, KL(p || q)": (FullRankGaussian(MLP(2, HIDDEN, gaussian), 2), ppvae.ForwardKL()),
        "mixture, KL(p || q)": (MixtureGuide(MLP(2, HIDDEN, mixture), 2, 2), ppvae.ForwardKL()),
    }


def simulate(rows: int) -> Tensor:
    """Draws of x from the model, shape (rows, 2)."""
    z = torch.randn(rows, 2)
    return torch.stack([z[:, 0].square(), z[:, 1]], -1) + NOISE * torch.randn(rows, 2)


def fit(model, guide: nn.Module, objective, train: Tensor, config: Config) -> None:
    epochs = max(1, config.steps * config.batch_size // len(train))
    steps = steps_of(epochs, len(train), config.batch_size)
    ppvae.fit(
        model,
        guide,
        objective,
        train,
        epochs=epochs,
        batch_size=config.batch_size,
        optimizer=ppvae.adam(config.learning_rate, schedule=half_cosine(steps)),
        seed=config.seed,
        device="cpu",
    )


def log_evidence(x: Tensor) -> Tensor:
    """log p(x), by quadrature over z_1 and in closed form over z_2; shape (B,), nats."""
    z = torch.linspace(-8, 8, 160_001, dtype=torch.float64)
    normal = torch.distributions.Normal
    log_joint = normal(0.0, 1.0).log_prob(z) + normal(z.square(), NOISE).log_prob(x[:, :1].double())
    second = normal(0.0, (1 + NOISE**2) ** 0.5).log_prob(x[:, 1].double())
    return log_joint.logsumexp(-1) + (z[1] - z[0]).log() + second


@torch.no_grad()
def lighter_side(guide, x: Tensor) -> float:
    """min(q(z_1 > 0 | x), q(z_1 < 0 | x)), mean over the data. It is .5 for the exact posterior."""
    share = (guide.distribution(guide.encoder(x)).sample((1000,))[..., 0] > 0).float().mean(0)
    return torch.minimum(share, 1 - share).mean().item()


@torch.no_grad()
def picture(guides: dict, x: Tensor) -> Figure:
    """The posterior of one datum and each guide's approximation of it."""
    axis = torch.linspace(-2, 2, 200)
    second, first = torch.meshgrid(axis, axis, indexing="ij")
    z = torch.stack([first, second], -1)
    mean = torch.stack([first.square(), second], -1)
    posterior = dist.Normal(0.0, 1.0).log_prob(z).sum(-1) + dist.Normal(mean, NOISE).log_prob(x[0]).sum(-1)
    densities = {"p(z | x)": posterior}
    for name, guide in guides.items():
        densities[name] = guide.distribution(guide.encoder(x)).log_prob(z.unsqueeze(2))[..., 0]
    figure = Figure(figsize=(3 * len(densities), 3.2), layout="constrained")
    for panel, (name, density) in zip(figure.subplots(1, len(densities), sharey=True), densities.items(), strict=True):
        panel.contourf(axis, axis, (density - density.max()).exp(), levels=12, cmap="Blues")
        panel.set(title=name, xlabel="z1")
    figure.axes[0].set_ylabel("z2")
    return figure


def print_sides(report: dict) -> None:
    table = Table("guide", "smaller mass of q on either side (posterior: .5)", "ELBO", "exact log p(x)")
    for name, record in report.items():
        numbers = (record["lighter_side"], record["elbo"], record["exact_log_p"])
        table.add_row(name, *(f"{number:.3f}" for number in numbers))
    Console().print(table)


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
