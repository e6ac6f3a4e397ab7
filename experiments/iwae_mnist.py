"""IWAE's table 1: more particles and more layers give a better model of MNIST if the bound is importance-weighted.

Claim: Burda, Grosse and Salakhutdinov 2016 ("Importance Weighted Autoencoders", table 1): the test NLL decreases with
the number of particles k and with a second stochastic layer. With the VAE's objective, k has little effect.

The published NLL is an upper bound, by the weights of the guide. The table has that bound of our guides, on all test
images, and the NLL by weights of a Gaussian that is fitted to the posterior of each image. On one core an image costs
about 0.02 s by the guide, 0.1 s by the fits of one layer and 1 s by those of two (150 latents; there most fits fail
after a short training, and the NLL is marked as an upper bound). So ``log_p_images`` of the test images are fitted,
evenly spaced. The NLL of all images is their bound less the mean difference on these, with its standard error.
``--log-p-images 0`` leaves the fits out.

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
from ppvae import LogMarginal, cli
from ppvae.data import Splits, load
from ppvae.evaluation.likelihood.per_datum import sampling_error
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
    """Test images for the guide's bound on the NLL."""
    log_p_images: int = 200
    """Test images for the NLL by fitted Gaussians, at least 2; 0 leaves it out."""
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
    of_a_run = ("layers", "objectives", "particles", "device", "out")
    return {name: value for name, value in asdict(config).items() if name not in of_a_run}


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
    bound = weighed(config, model, guide, x, proposal=None)
    return {
        "guide_nll_bound": -bound.mean,
        "guide_nll_bound_simulation_error": bound.simulation_error,
        "guide_nll_bound_sampling_error": bound.sampling_error,
        "guide_khat_bad": number(bound.khat_bad),
        **(nll(config, model, guide, x, bound) if config.log_p_images else {}),
        "test_elbo": -ppvae.evaluate_loss(ppvae.ELBO(), model, guide, test.take(slice(0, len(x))), seed=config.seed),
        "active_units": [
            ppvae.latent_statistics(model, guide, x[:1000], site=site, seed=config.seed).active_units
            for site in [f"z{layer + 1}" for layer in range(len(guide.encoders))]
        ],
    }


def nll(config: Config, model, guide, x: Tensor, bound: LogMarginal) -> dict:
    """The NLL of all images: the guide's bound, less the mean of log p(x) less the bound on some, evenly spaced."""
    some = x[:: max(1, len(x) // config.log_p_images)][: config.log_p_images]
    found = weighed(config, model, guide, some, proposal="auto")
    above = found.value - found.guide.value
    return {
        "nll": -bound.mean - above.mean().item(),
        "nll_below_bound": above.mean().item(),
        "nll_below_bound_standard_error": sampling_error(above),
        "nll_failed": number(found.khat_bad),
        "nll_is_upper_bound": not found.is_reliable,
    }


def weighed(config: Config, model, guide, x: Tensor, proposal) -> LogMarginal:
    options = {"num_particles": config.test_particles, "keep_weights": False, "seed": config.seed, "progress": True}
    return ppvae.log_marginal(model, guide, x, proposal=proposal, **options)


def number(value: float) -> float | None:
    return None if math.isnan(value) else value


def value(reports: list[dict], layers: int, objective: str, k: int, key: str):
    """A number of one cell; None if it was not computed. For k = 1 the two objectives share a cell."""
    cell = (layers, "vae" if k == 1 else objective, k)
    found = [r.get(key) for r in reports if (r["layers"], r["objective"], r["particles"]) == cell]
    return found[0] if found else None


def print_table(reports: list[dict]) -> None:
    columns = [(layers, objective) for layers in PUBLISHED for objective in PUBLISHED[layers]]
    heads = [f"{layers} layer{'s' * (layers > 1)}, {objective.upper()}" for layers, objective in columns]
    one = reports[0]
    title = f"{one['data']}, {one['epochs']} epochs: test NLL in nats by {one['test_particles']} particles. Guide's "
    title += f"bound: an upper bound, on {one['test_images']} images (active units)"
    if one["log_p_images"]:
        title += f". NLL: by Gaussians fitted to the posteriors of {one['log_p_images']} images; failed: k-hat is bad; "
        title += "≤: upper bound, since more than 5% failed"
    table = Table("k in training", "", *heads, title=title)
    for k in (1, 5, 50):
        table.add_row(str(k), "guide's bound", *(shown_bound(reports, *column, k) for column in columns))
        if one["log_p_images"]:
            table.add_row("", "NLL", *(shown_nll(reports, *column, k) for column in columns))
        if one["data"] == "mnist":
            published = (PUBLISHED[layers][objective][k] for layers, objective in columns)
            table.add_row("", "[dim]published bound", *(f"[dim]{number:.2f}" for number in published))
    Console().print(table)


def shown_bound(reports: list[dict], *cell) -> str:
    bound, units = (value(reports, *cell, key) for key in ("guide_nll_bound", "active_units"))
    return "not run" if bound is None else f"{bound:.2f} ({'+'.join(map(str, units))})"


def shown_nll(reports: list[dict], *cell) -> str:
    mean, error = (value(reports, *cell, key) for key in ("nll", "nll_below_bound_standard_error"))
    if mean is None:
        return ""
    failed, is_upper_bound = (value(reports, *cell, key) for key in ("nll_failed", "nll_is_upper_bound"))
    share = "" if failed is None else f", {failed:.0%} failed"
    return f"{'≤ ' * is_upper_bound}{mean:.2f} ± {error:.2f}{share}"


def picture(reports: list[dict]) -> Figure:
    """The NLL and the guide's bound on it against k, and the published bound."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    for panel, layers in zip(figure.subplots(1, 2, sharey=True), PUBLISHED, strict=True):
        for colour, objective in zip(("C0", "C1"), PUBLISHED[layers], strict=True):
            for (label, values), style in zip(lines(reports, layers, objective).items(), ("--", "-", ":"), strict=True):
                label, face = f"{objective.upper()}, {label}", "w" if style == ":" else colour
                panel.plot(list(values), list(values.values()), f"o{style}", color=colour, mfc=face, label=label)
        panel.set(xscale="log", xlabel="k in training", title=f"{layers} stochastic layer{'s' * (layers > 1)}")
        panel.set_xticks([1, 5, 50], ["1", "5", "50"])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    figure.axes[0].set_ylabel("test NLL, nats")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def lines(reports: list[dict], layers: int, objective: str) -> dict[str, dict[int, float]]:
    """The values of each line by k, as far as they were computed."""
    bound, nll = (
        {k: found for k in (1, 5, 50) if (found := value(reports, layers, objective, k, key)) is not None}
        for key in ("guide_nll_bound", "nll")
    )
    published = PUBLISHED[layers][objective] if reports[0]["data"] == "mnist" else {}
    label = "NLL, partly upper bounds" if any(r.get("nll_is_upper_bound") for r in reports) else "NLL"
    return {"guide's bound": bound, label: nll, "published bound": published}


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
