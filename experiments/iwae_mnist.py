"""IWAE's table 1: more particles and more layers give a better model of MNIST if the bound is importance-weighted.

Claim: Burda, Grosse and Salakhutdinov 2016 ("Importance Weighted Autoencoders", table 1): the test NLL decreases with
the number of particles k and with a second stochastic layer. With the VAE's objective, k has little effect.

The exact recipe takes 3,280 epochs per cell: stage i = 0 to 7 has 3^i epochs at learning rate 1e-3 * 10^(-i/7). The
default shortens each stage to one epoch and keeps the rest.

    python experiments/iwae_mnist.py                              # all cells, shortened
    python experiments/iwae_mnist.py --exact --test-particles 5000  # the paper's recipe
    python experiments/iwae_mnist.py --layers 1 --particles 50    # some of the cells

A finished cell is not repeated and an interrupted one is resumed, so several processes can share the table. Writes to
the run folder, for each cell: checkpoints, metrics.jsonl, report.json; and table.json, nll.png.
"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from schedules import staircase
from torch import Tensor, nn

import ppvae
from ppvae import cli
from ppvae.data import Splits, load
from ppvae.guides import BottomUpGuide
from ppvae.models import HierarchicalVAE
from ppvae.nn import MLP
from ppvae.training import RunDir, environment, resolve_device
from ppvae.training.study import finished, reports, write_report

PUBLISHED = {  # test NLL in nats by layers, objective, k: Burda et al. 2016, table 1
    1: {"vae": {1: 86.76, 5: 86.47, 50: 86.35}, "iwae": {1: 86.76, 5: 85.54, 50: 84.78}},
    2: {"vae": {1: 85.33, 5: 85.01, 50: 84.78}, "iwae": {1: 85.33, 5: 83.89, 50: 82.90}},
}
STAGES = 8
LATENT_DIMS = (100, 50)  # of the two layers
Objective = Literal["vae", "iwae"]


@dataclass(frozen=True)
class Config:
    """Settings of the table."""

    layers: tuple[int, ...] = (1, 2)
    objectives: tuple[Objective, ...] = ("vae", "iwae")
    """vae: the mean of k log weights. iwae: the log of the mean of k weights. They are equal for k = 1."""
    particles: tuple[int, ...] = (1, 5, 50)
    """k in training."""
    epochs_per_stage: int = 1
    exact: bool = False
    """3^i epochs in stage i, as in the paper."""
    data: Literal["mnist", "digits"] = "mnist"
    batch_size: int = 20
    test_images: int = 10_000
    test_particles: int = 1000
    """5,000 in the paper."""
    seed: int = 0
    device: str = "auto"
    out: Path = Path("runs/iwae-mnist")


@dataclass(frozen=True)
class Cell:
    """One training of the table."""

    layers: int
    objective: Objective
    particles: int

    @property
    def name(self) -> str:
        return f"{self.layers}-layer-{self.objective}-k{self.particles}"


def main(config: Config) -> list[dict]:
    splits = load(config.data, validation=0)
    for cell in cells(config):
        if not finished(config.out / cell.name, settings(config)):
            run(config, cell, splits)
    found = reports(config.out, settings(config))
    (config.out / "table.json").write_text(json.dumps(found, indent=2) + "\n")
    picture(found).savefig(config.out / "nll.png", dpi=120)
    print_table(found)
    return found


def cells(config: Config) -> list[Cell]:
    """The requested trainings. For k = 1 the two objectives are equal and are trained once."""
    wanted = [
        Cell(layers, "vae" if k == 1 else objective, k)
        for layers in config.layers
        for k in config.particles
        for objective in config.objectives
    ]
    return list(dict.fromkeys(wanted))


def settings(config: Config) -> dict:
    """The settings that all cells of one table have in common."""
    of_the_table = ("exact", "epochs_per_stage", "data", "batch_size", "test_images", "test_particles", "seed")
    return {name: value for name, value in asdict(config).items() if name in of_the_table}


def run(config: Config, cell: Cell, splits: Splits) -> None:
    folder, device = config.out / cell.name, resolve_device(config.device)
    Console().print(f"run folder {folder}")
    torch.manual_seed(config.seed)
    model, guide = build_pair(cell.layers, splits.train.grey(slice(None)).mean(0))
    train = splits.train.unlabelled()
    epochs = lengths(config)
    result = ppvae.fit(
        model.to(device),
        guide.to(device),
        ppvae.IWAE(cell.particles) if cell.objective == "iwae" else ppvae.ELBO(cell.particles, analytic_kl=False),
        train,
        epochs=sum(epochs),
        batch_size=config.batch_size,
        optimizer=ppvae.adam(
            1e-3,
            schedule=staircase(epochs, len(train) // config.batch_size),
            betas=(0.9, 0.999),
            eps=1e-4 / config.batch_size,  # the paper's 1e-4 applies to gradients of sums over a batch, here are means
        ),
        run_dir=RunDir(folder, resume=True),
        device=config.device,
        seed=config.seed,
    )
    report = {**asdict(cell), **settings(config), **scores(config, model, guide, splits)}
    report |= {"epochs": sum(epochs), "training_seconds": result.metrics[-1]["seconds"], **environment(device)}
    write_report(folder, report)


def build_pair(layers: int, mean: Tensor):
    """The paper's pair, with tanh units and Glorot's initial weights, for images with that mean.

    One layer: x - 200 - 200 - z of 50. Two layers: x - 200 - 200 - z1 of 100 - 100 - 100 - z2 of 50.
    """

    def net(inputs, hidden: int, outputs) -> MLP:
        return MLP(inputs, [hidden, hidden], outputs, nn.Tanh)

    shape = tuple(mean.shape)
    if layers == 1:
        model, guide = HierarchicalVAE(net(50, 200, shape), [], 50), BottomUpGuide([net(shape, 200, 100)])
    else:
        below, top = LATENT_DIMS
        model = HierarchicalVAE(net(below, 200, shape), [net(top, 100, 2 * below)], top)
        guide = BottomUpGuide([net(shape, 200, 2 * below), net(below, 100, 2 * top)])
    for module in (*model.modules(), *guide.modules()):
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    with torch.no_grad():
        model.decoder.layers[-1].bias.copy_(mean.clamp(0.001, 0.999).logit().flatten())
    return model, guide


def lengths(config: Config) -> list[int]:
    """Number of epochs of each stage."""
    return [3**stage if config.exact else config.epochs_per_stage for stage in range(STAGES)]


def scores(config: Config, model, guide, splits: Splits) -> dict:
    """Scores on the test images, which are binarized once and are the same for every cell."""
    test = splits.test.unlabelled().binarized(config.seed)
    x = test.rows(slice(0, config.test_images))
    found = ppvae.log_marginal(
        model, guide, x, num_particles=config.test_particles, keep_weights=False, seed=config.seed, progress=True
    )
    return {
        "nll": -found.mean,
        "nll_simulation_error": found.simulation_error,
        "nll_sampling_error": found.sampling_error,
        "test_elbo": -ppvae.evaluate_loss(ppvae.ELBO(), model, guide, test.take(slice(0, len(x))), seed=config.seed),
        "nll_is_upper_bound": not found.is_reliable,
        "khat_bad": None if math.isnan(found.khat_bad) else found.khat_bad,
        "active_units": [
            ppvae.latent_statistics(model, guide, x[:1000], site=site, seed=config.seed).active_units
            for site in [f"z{layer + 1}" for layer in range(len(guide.encoders))]
        ],
    }


def value(reports: list[dict], layers: int, objective: str, k: int, key: str = "nll"):
    """A number of one cell; None if the cell was not run. For k = 1 the two objectives share a cell."""
    cell = (layers, "vae" if k == 1 else objective, k)
    found = [r[key] for r in reports if (r["layers"], r["objective"], r["particles"]) == cell]
    return found[0] if found else None


def print_table(reports: list[dict]) -> None:
    heads = [f"{layers} layer{'s' * (layers > 1)}, {o.upper()}" for layers in PUBLISHED for o in PUBLISHED[layers]]
    one = reports[0]
    title = (
        f"{one['data']}, {one['epochs']} epochs: test NLL in nats by {one['test_particles']} particles on "
        f"{one['test_images']} images (active units){', published below' * (one['data'] == 'mnist')}; ≤ marks upper "
        "bounds, where k-hat is bad"
    )
    table = Table("k in training", *heads, title=title)
    for k in (1, 5, 50):
        columns = [(layers, objective) for layers in PUBLISHED for objective in PUBLISHED[layers]]
        table.add_row(str(k), *(shown(reports, layers, objective, k) for layers, objective in columns))
        if one["data"] == "mnist":
            table.add_row("", *(f"[dim]{PUBLISHED[layers][objective][k]:.2f}" for layers, objective in columns))
    Console().print(table)


def shown(reports: list[dict], *cell) -> str:
    nll, units = value(reports, *cell), value(reports, *cell, "active_units")
    if nll is None:
        return "not run"
    return f"{'≤ ' * value(reports, *cell, 'nll_is_upper_bound')}{nll:.2f} ({'+'.join(map(str, units))})"


def picture(reports: list[dict]) -> Figure:
    """NLL against k, from the reports and as published."""
    figure = Figure(figsize=(8, 3.5), layout="constrained")
    for panel, layers in zip(figure.subplots(1, 2, sharey=True), PUBLISHED, strict=True):
        for colour, objective in zip(("C0", "C1"), PUBLISHED[layers], strict=True):
            ours = {k: nll for k in (1, 5, 50) if (nll := value(reports, layers, objective, k)) is not None}
            published = PUBLISHED[layers][objective]
            panel.plot(list(ours), list(ours.values()), "o-", color=colour, label=f"{objective.upper()}, ppvae")
            if reports[0]["data"] == "mnist":
                panel.plot(list(published), list(published.values()), "o:", color=colour, mfc="w", label="published")
        panel.set(xscale="log", xlabel="k in training", title=f"{layers} stochastic layer{'s' * (layers > 1)}")
        panel.set_xticks([1, 5, 50], ["1", "5", "50"])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    figure.axes[0].set_ylabel("test NLL, nats")
    figure.axes[0].legend()
    return figure


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
