"""One run on dSprites: any recipe for disentanglement, every metric, every figure.

Claim: Kim and Mnih 2018 ("Disentangling by Factorising"): a penalty on the total correlation of the aggregate posterior
disentangles at less cost in reconstruction than beta-VAE's weight on the whole KL: FactorVAE score .82 at gamma 40
against .73 at beta 4 after 300,000 steps. The networks and the batch size are theirs; the images are rendered by
formula (``--data dsprites`` reads the published file).

Shortened: 30,000 steps at five times their learning rates (of the pair and of the critic), with the networks' products
in bfloat16. Theirs is ``--steps 300000 --learning-rate 1e-4 --critic-learning-rate 1e-4``. The first weights are
small ones (torch's own by ``--initial-scale None``). AnnealedVAE's gamma is 20 (``--gamma 1000`` is the usual one).

    python experiments/factorvae_dsprites.py --recipe factor-vae --strength 35
    python experiments/factorvae_dsprites.py --recipe beta-vae
    python experiments/factorvae_dsprites.py --steps 300 --leave-out dci --out runs/look

Writes to the run folder: settings.json, checkpoints, metrics.jsonl, correlations.json, report.json, codes.safetensors
(means and scales of the whole grid), traversals.png, traversals.gif, reconstructions.png, information.png,
total_correlation.png. Run again, it takes up what was stopped; with more ``--steps`` (from 1,000 on) it trains on.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from ppvae.guides import MeanFieldGaussian
from ppvae.models import GaussianVAE
from rich.console import Console
from safetensors.torch import save_file
from torch import nn
from total_correlations import at_the_end, correlations, followed, later_critic, log_ratio, remember

import ppvae
from ppvae import AdversarialDivergence, adversarial_autoencoder, cli, plots
from ppvae.data import Dataset, load
from ppvae.evaluation.disentanglement import Disentanglement, Representation, represent, score
from ppvae.nn import Autocast, ConvDecoder, ConvEncoder
from ppvae.objectives import critic_adam, critic_network
from ppvae.training import environment, resolve_device
from ppvae.training.run_folder import locked
from ppvae.training.study import claim, started, withdraw_report, write_report

Recipe = Literal[
    *("vae", "beta-vae", "factor-vae", "beta-tcvae", "dip-vae-i", "dip-vae-ii", "annealed-vae", "geco"),
    *("info-vae", "info-vae-stein", "info-vae-adversarial", "wae", "adversarial-autoencoder"),
]
RECIPES: dict[str, tuple[Callable[[float, "Config", int], ppvae.Objective], float]] = {  # and the usual strength
    "vae": (lambda strength, config, n: ppvae.ELBO(), 1.0),
    "beta-vae": (lambda beta, config, n: ppvae.beta_vae(beta), 4.0),
    "factor-vae": (lambda gamma, config, n: ppvae.factor_vae(gamma, **critic(config)), 35.0),
    "beta-tcvae": (lambda beta, config, n: ppvae.beta_tcvae(n, beta=beta), 6.0),
    "dip-vae-i": (lambda strength, config, n: ppvae.dip_vae_i(strength), 10.0),
    "dip-vae-ii": (lambda strength, config, n: ppvae.dip_vae_ii(strength), 10.0),
    "annealed-vae": (lambda capacity, config, n: ppvae.annealed_vae(capacity, config.ramp, config.gamma), 25.0),
    "geco": (lambda tolerance, config, n: ppvae.geco(tolerance), 50.0),
    "info-vae": (lambda strength, config, n: ppvae.info_vae(0.0, strength), 1000.0),
    "info-vae-stein": (lambda strength, config, n: ppvae.info_vae(0.0, strength, ppvae.SteinDiscrepancy), 10.0),
    "info-vae-adversarial": (
        lambda strength, config, n: ppvae.info_vae(0.0, strength, partial(AdversarialDivergence, **critic(config))),
        10.0,
    ),
    "wae": (lambda strength, config, n: ppvae.wae(strength), 1000.0),
    "adversarial-autoencoder": (lambda weight, config, n: adversarial_autoencoder(weight, **critic(config)), 1.0),
}
ANNEALED = ("gamma", "ramp")  # settings of that recipe alone
CHANNELS, WIDTH = (32, 32, 64, 64), 128
EPOCH = 1000  # steps
IMAGES = 10_000  # of the reconstruction error


@dataclass(frozen=True)
class Config:
    """Settings of one run."""

    recipe: Recipe = "factor-vae"
    strength: float | None = None
    """gamma, beta, lambda, capacity, tolerance: what the recipe is a function of; None for the usual one."""
    data: Literal["sprites", "dsprites"] = "sprites"
    steps: int = 30_000
    batch_size: int = 64
    latent_dim: int = 10
    learning_rate: float = 5e-4
    """Of the pair."""
    critic_learning_rate: float = 5e-4
    gamma: float = 20.0
    """Of AnnealedVAE. In a short ramp the usual 1,000 moves the encoder by the KL alone, which then fills its capacity
    with one shift of all codes; 20 nats a nat still hold the KL to it."""
    ramp: int = 3333
    """Steps in which AnnealedVAE's capacity grows from 0 to its strength; in 10,000 that one shift filled it too."""
    initial_scale: float | None = 0.03
    """Standard deviation of the pair's first weights, with biases of 0; None for torch's own."""
    bfloat16: bool = True
    """Products of the networks in bfloat16, but for the layer that gives means and scales; these, densities, draws and
    parameters stay in float32."""
    correlations: int = 5
    """How often the total correlation over the whole set is taken in training; each time takes a pass over it. What was
    taken of a shorter run is kept."""
    leave_out: tuple[str, ...] = ()
    """Metrics such as dci, the slowest."""
    seed: int = 0
    device: str = "auto"
    out: Path | None = None
    """None: runs/disentanglement/RECIPE-STRENGTH-SEED."""


def main(config: Config) -> dict:
    folder = run_folder(config)
    with locked(folder):
        return run(config, folder)


def run(config: Config, folder: Path) -> dict:
    Console().print(f"run folder {folder}")
    claim(folder, {name: value for name, value in settings(config).items() if name not in ("leave_out", "steps")})
    data = load(config.data).train
    torch.manual_seed(config.seed)
    device = resolve_device(config.device)
    model, guide = (part.to(device) for part in build_pair(config, data))
    objective = build_objective(config, len(data))
    seconds, codes = train(config, model, guide, objective, data, folder)
    withdraw_report(folder)  # of a shorter run
    save_file({"means": codes.codes, "scales": codes.scales}, folder / "codes.safetensors")
    ratio = log_ratio(objective)
    found = score(codes, critic=ratio, seed=config.seed, leave_out=config.leave_out, progress=True)
    if found.aggregate is not None:
        remember(folder, at_the_end(config.steps, found))
    error = reconstruction(model, guide, data, config.seed)
    draw_figures(model, guide, data, codes, followed(folder), folder)
    found.plot().savefig(folder / "information.png", dpi=120)
    report = {**settings(config), "reconstruction": error, **found.to_dict()}
    report["total_correlation_by_later_critic"] = later_critic(codes, config.seed)
    report |= {"correlations": followed(folder), "training_seconds": seconds, **environment(device)}
    write_report(folder, report)
    print_report(report, found)
    return report


def settings(config: Config) -> dict:
    """What makes the run what it is."""
    others = ("device", "out", "correlations", *(() if config.recipe == "annealed-vae" else ANNEALED))
    own = asdict(config) | {"strength": strength(config)}
    return {name: value for name, value in own.items() if name not in others}


def strength(config: Config) -> float:
    return RECIPES[config.recipe][1] if config.strength is None else config.strength


def run_folder(config: Config) -> Path:
    return config.out or Path("runs/disentanglement") / f"{config.recipe}-{strength(config):g}-seed{config.seed}"


def build_pair(config: Config, data: Dataset) -> tuple[nn.Module, nn.Module]:
    body = ConvEncoder(data.event_shape, CHANNELS, WIDTH)
    decoder = ConvDecoder(config.latent_dim, CHANNELS[::-1], data.event_shape, hidden=[WIDTH])
    if config.bfloat16:
        body, decoder = Autocast(body), Autocast(decoder)
    encoder = nn.Sequential(body, nn.ReLU(), nn.Linear(WIDTH, 2 * config.latent_dim))
    if config.initial_scale is not None:
        for network in (encoder, decoder):
            network.apply(partial(small, scale=config.initial_scale))
    return GaussianVAE(decoder, config.latent_dim), MeanFieldGaussian(encoder)


def small(layer: nn.Module, scale: float) -> None:
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(layer.weight, std=scale)
        nn.init.zeros_(layer.bias)


def build_objective(config: Config, num_data: int) -> ppvae.Objective:
    return RECIPES[config.recipe][0](strength(config), config, num_data)


def critic(config: Config) -> dict:
    network = critic_network(config.latent_dim)
    network = Autocast(network) if config.bfloat16 else network
    optimizer = partial(critic_adam, lr=config.critic_learning_rate)
    return {"latent_dim": config.latent_dim, "critic": network, "optimizer": optimizer}


def train(config: Config, model, guide, objective, data: Dataset, folder: Path) -> tuple[float, Representation]:
    """Train in stages, and remember the total correlation after each but the last; gives the seconds and the codes."""
    for stage in stages(config):
        last = train_to(stage, config, model, guide, objective, data, folder)
        if last["epoch"] == stage:  # else the run had come further before it was stopped
            codes = represent(model, guide, data, progress=True)
        if last["epoch"] == stage and last["step"] < config.steps:
            remember(folder, {"step": last["step"], **correlations(codes, objective, config.seed)})
    if last["epoch"] != stage:
        raise ValueError(f"expected a run of {config.steps} steps in {folder}, got one that has come to {last['step']}")
    return last["seconds"], codes


def train_to(stage: int, config: Config, model, guide, objective, data: Dataset, folder: Path) -> dict:
    """Train until that many epochs are done, from where the run folder stands; gives the last epoch's metrics."""
    result = ppvae.fit(
        model,
        guide,
        objective,
        data,
        epochs=stage,
        steps_per_epoch=min(EPOCH, config.steps),
        batch_size=config.batch_size,
        optimizer=ppvae.adam(config.learning_rate),
        run_dir=folder,
        resume=started(folder),
        device=config.device,
        seed=config.seed,
    )
    return result.metrics[-1]


def stages(config: Config) -> list[int]:
    """The epochs after which the total correlation is taken; the last one ends the run."""
    epoch = min(EPOCH, config.steps)
    if config.steps < 1 or config.correlations < 1 or config.steps % epoch:
        raise ValueError(
            f"expected at most {EPOCH} steps or a multiple of it, and correlations of at least 1, got {config.steps} "
            f"and {config.correlations}"
        )
    epochs = config.steps // epoch
    return sorted({-(-epochs * (i + 1) // config.correlations) for i in range(config.correlations)})


def reconstruction(model, guide, data: Dataset, seed: int) -> float:
    """- E log p(x | z), in nats, over images drawn at random."""
    rows = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[:IMAGES]
    return ppvae.evaluate_loss(ppvae.Reconstruction(), model, guide, data.take(rows), seed=seed)


def draw_figures(model, guide, data: Dataset, codes: Representation, totals: list[dict], folder: Path) -> None:
    example = data.rows(data.factors.index(torch.tensor([[2 * size // 3 for size in data.factors.sizes]])))  # a heart
    moved = ppvae.traversals(model, guide, example).cpu()
    plots.traversal_grid(moved, codes.kl).savefig(folder / "traversals.png", dpi=120)
    plots.animate(moved[codes.kl.argsort(descending=True)], folder / "traversals.gif")
    x = data.rows(torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:10])
    x = x.to(next(model.parameters()).device)
    with torch.no_grad():
        again = model.decode(ppvae.features(guide, x), x.dim() - 1).mean
    rows = torch.stack([x, again])
    plots.image_grid(rows, ["image", "reconstruction"]).savefig(folder / "reconstructions.png", dpi=120)
    if not totals:
        return
    names = {"total_correlation": "of all data", "critic": "by the critic"}
    series = {label: [row[name] for row in totals] for name, label in names.items() if name in totals[0]}
    figure = plots.curves([row["step"] for row in totals], series, "step", "total correlation, nats")
    figure.savefig(folder / "total_correlation.png", dpi=120)


def print_report(report: dict, found: Disentanglement) -> None:
    table = found.table()
    table.title = f"{report['recipe']} {report['strength']:g}, {report['steps']} steps, seed {report['seed']}"
    table.add_row("total correlation, later critic", f"{report['total_correlation_by_later_critic']:.3f}", "nats")
    table.add_row("reconstruction error", f"{report['reconstruction']:.2f}", "nats, - E log p(x | z)")
    Console().print(table)
    Console().print(f"{report['training_seconds']:.0f} s of training; {report['hardware']}")


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
