"""A training step with many particles: what the better gradients cost, timed in one run.

Claim: at k = 50 a step of DReG, which scores its draws a second time under the guide, takes at most 1.3 times that of
IWAE, since the decoder is run once for both.

Stock Pyro's importance-weighted bound (``RenyiELBO(alpha=0)``) trains the same pair in the same loop. IWAE, DReG and
RenyiELBO start from the same loss, and so do ELBO and sticking-the-landing (STL). The rounds take turns.

    python experiments/benchmarks/dreg.py
    python experiments/benchmarks/dreg.py --batch-size 100
"""

from dataclasses import dataclass
from statistics import median

import torch
from ppvae.guides import MeanFieldGaussian
from ppvae.models import GaussianVAE
from pyro.infer import RenyiELBO
from rich.console import Console
from rich.table import Table

import ppvae
from ppvae import command_line
from ppvae.data import Dataset, load
from ppvae.nn import MLP
from ppvae.training import environment

LATENT_DIM, HIDDEN = 50, [200, 200]


@dataclass(frozen=True)
class Config:
    """Size of the comparison."""

    particles: int = 50
    batch_size: int = 20
    steps: int = 50
    """Training steps a round."""
    rounds: int = 5
    seed: int = 0


def objectives(k: int) -> dict:
    return {
        "IWAE": ppvae.IWAE(k),
        "DReG": ppvae.DReG(k),
        "ELBO": ppvae.ELBO(k, analytic_kl=False),
        "STL": ppvae.StickingTheLanding(k),
        "stock RenyiELBO": RenyiELBO(alpha=0, num_particles=k, max_plate_nesting=1, vectorize_particles=True),
    }


def train(config: Config, objective, data: Dataset, seed: int) -> tuple[float, float]:
    """Mean loss per image, in nats, and seconds a step."""
    torch.manual_seed(seed)
    model = GaussianVAE(MLP(LATENT_DIM, HIDDEN, data.event_shape), LATENT_DIM)
    guide = MeanFieldGaussian(MLP(data.event_shape, HIDDEN, 2 * LATENT_DIM))
    result = ppvae.fit(
        model, guide, objective, data, epochs=1, batch_size=config.batch_size, seed=seed, device="cpu", progress=False
    )
    return result.metrics[0]["loss"], result.metrics[0]["seconds"] / config.steps


def main(config: Config) -> dict[str, list[tuple[float, float]]]:
    """Loss and seconds a step of each round, by objective."""
    rows = config.steps * config.batch_size
    images = load("mnist").train.unlabelled().take(slice(0, rows)).binarized(config.seed)
    data = Dataset(images.rows(slice(None)))
    runs = {name: [] for name in objectives(config.particles)}
    for seed in range(config.seed, config.seed + config.rounds):
        for name, objective in objectives(config.particles).items():
            runs[name].append(train(config, objective, data, seed))
    report(config, runs)
    return runs


def report(config: Config, runs: dict[str, list[tuple[float, float]]]) -> None:
    title = f"k {config.particles}, batch {config.batch_size}, hidden {HIDDEN}, z {LATENT_DIM}"
    table = Table("", "ms a step", "time, IWAE = 1", "mean loss, nats", title=title)
    seconds = {name: median(second for _, second in results) for name, results in runs.items()}
    for name, results in runs.items():
        loss = sum(loss for loss, _ in results) / len(results)
        table.add_row(name, f"{1e3 * seconds[name]:.1f}", f"{seconds[name] / seconds['IWAE']:.2f}", f"{loss:.3f}")
    console = Console()
    console.print(table)
    console.print(", ".join(f"{name} {value}" for name, value in environment(torch.device("cpu")).items()))


if __name__ == "__main__":
    command_line.run(main, Config, __doc__)
