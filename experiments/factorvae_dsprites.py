"""One run on dSprites: a recipe for disentanglement, all metrics, all figures.

Claim: Kim and Mnih 2018 ("Disentangling by Factorising"): a penalty on the total correlation of the aggregate posterior
disentangles at a lower cost in reconstruction than beta-VAE's weight on the whole KL. They report a FactorVAE score of
.82 at gamma 40 and of .73 at beta 4, after 300,000 steps. Networks and batch size are theirs. The images are rendered
by formula (``--data dsprites`` reads the published file).

Shortened: 30,000 steps at five times their learning rates (of the pair and of the critic), with products in bfloat16.
Their schedule is ``--steps 300000 --learning-rate 1e-4 --critic-learning-rate 1e-4``. The initial weights are small
(torch's default: ``--initial-scale None``). AnnealedVAE's gamma is 20 (commonly 1,000: ``--gamma 1000``).

    python experiments/factorvae_dsprites.py --recipe factor-vae --strength 35
    python experiments/factorvae_dsprites.py --recipe beta-vae
    python experiments/factorvae_dsprites.py --recipe factor-vae-discrete     # z and a class; see discrete_factors.py
    python experiments/factorvae_dsprites.py --steps 300 --leave-out dci --out runs/look

Writes to the run folder: settings.json, checkpoints, metrics.jsonl, correlations.json, report.json, codes.safetensors
(means and scales of the whole grid), traversals.png, traversals.gif, reconstructions.png, information.png,
total_correlation.png. The same command again resumes an interrupted run; with more ``--steps`` (from 1,000 on) it
trains a finished run further.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import discrete_factors
import torch
from dsprites_figures import save_figures
from rich.console import Console
from safetensors.torch import save_file
from torch import nn
from total_correlations import correlations, final_row, later_critic, log_ratio, record, recorded

import ppvae
from ppvae import AdversarialDivergence, adversarial_autoencoder, cli
from ppvae.data import Dataset, load
from ppvae.evaluation.disentanglement import Disentanglement, Representation, represent, score
from ppvae.guides import LabelGuide, MeanFieldGaussian
from ppvae.models import GaussianVAE, SemiSupervisedVAE
from ppvae.nn import AppendLabel, Autocast, ConvDecoder, ConvEncoder
from ppvae.objectives import critic_network
from ppvae.training import Batching, RunDir, environment, resolve_device
from ppvae.training.run_folder import locked
from ppvae.training.study import claim, withdraw_report, write_report

Recipe = Literal[
    *("vae", "beta-vae", "factor-vae", "beta-tcvae", "dip-vae-i", "dip-vae-ii", "annealed-vae", "geco"),
    *("info-vae", "info-vae-stein", "info-vae-adversarial", "wae", "adversarial-autoencoder", "factor-vae-discrete"),
]
RECIPES: dict[str, tuple[Callable[[float, "Config", int], ppvae.Objective], float]] = {  # and the default strength
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
    discrete_factors.RECIPE: (
        lambda gamma, config, n: discrete_factors.objective(gamma, config, critic(config, config.classes)),
        35.0,
    ),
}
OWN_SETTINGS = {  # those that one recipe alone reads
    "annealed-vae": ("gamma", "ramp"),
    discrete_factors.RECIPE: ("classes", "class_weight", "class_ramp"),
}
CHANNELS, WIDTH = (32, 32, 64, 64), 128
EPOCH = 1000  # steps
IMAGES = 10_000  # on which the reconstruction error is computed


@dataclass(frozen=True)
class Config:
    """Settings of one run."""

    recipe: Recipe = "factor-vae"
    strength: float | None = None
    """The argument of the recipe: gamma, beta, lambda, capacity or tolerance. None for its default."""
    data: Literal["sprites", "dsprites"] = "sprites"
    steps: int = 30_000
    batch_size: int = 64
    latent_dim: int = 10
    learning_rate: float = 5e-4
    """Learning rate of the pair."""
    critic_learning_rate: float = 5e-4
    gamma: float = 20.0
    """Weight of AnnealedVAE's constraint. With the usual 1,000 and a short ramp, the KL alone moves the encoder and
    fills its capacity with one shift of all codes; 20 nats per nat still hold the KL at its target."""
    ramp: int = 3333
    """Steps in which AnnealedVAE's capacity grows from 0 to its strength. With 10,000 the same shift filled it."""
    classes: int = 3
    """Classes of factor-vae-discrete."""
    class_weight: float = 200.0
    """Weight of the KL of the class at the start."""
    class_ramp: int = 20_000
    """Steps in which that weight goes to 1."""
    initial_scale: float | None = 0.03
    """Standard deviation of the pair's initial weights, with biases 0; None for torch's default."""
    bfloat16: bool = True
    """Compute products of the networks in bfloat16, except in the layer that gives means and scales. That layer,
    densities, draws and parameters stay in float32."""
    correlations: int = 5
    """Number of times that the total correlation of all data is computed during training; each takes a pass over the
    data. Values of a shorter run in the same folder are kept."""
    stage_scores: bool = False
    """Compute the metrics as often as the total correlation, for disentanglement_study.py --agreement checkpoints."""
    leave_out: tuple[str, ...] = ()
    """Metrics to skip, such as dci, the slowest."""
    seed: int = 0
    device: str = "auto"
    out: Path | None = None
    """Run folder; default: runs/disentanglement/RECIPE-STRENGTH-SEED."""


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
    withdraw_report(folder)  # the report of a shorter run no longer holds
    save_file({"means": codes.codes, "scales": codes.scales}, folder / "codes.safetensors")
    found = score(codes, critic=log_ratio(objective), seed=config.seed, leave_out=config.leave_out, progress=True)
    if found.aggregate is not None:
        record(folder, {**final_row(config.steps, found), **(found.scores if config.stage_scores else {})})
    error = reconstruction_error(model, guide, data, config.seed)
    save_figures(model, guide, data, found, folder)
    report = {**settings(config), "reconstruction": error, **found.to_dict()}
    if config.recipe == discrete_factors.RECIPE:
        report |= discrete_factors.evaluate(model, guide, data, codes, config, folder)
    report["total_correlation_by_later_critic"] = later_critic(codes, config.seed)
    report |= {"correlations": recorded(folder), "training_seconds": seconds, **environment(device)}
    write_report(folder, report)
    print_report(report, found)
    discrete_factors.print_report(report)
    return report


def settings(config: Config) -> dict:
    """The settings that determine the result of the run."""
    of_others = [name for recipe, names in OWN_SETTINGS.items() if recipe != config.recipe for name in names]
    others = ("device", "out", "correlations", "stage_scores", *of_others)
    own = asdict(config) | {"strength": strength(config)}
    return {name: value for name, value in own.items() if name not in others}


def strength(config: Config) -> float:
    return RECIPES[config.recipe][1] if config.strength is None else config.strength


def run_folder(config: Config) -> Path:
    return config.out or Path("runs/disentanglement") / f"{config.recipe}-{strength(config):g}-seed{config.seed}"


def build_pair(config: Config, data: Dataset) -> tuple[nn.Module, nn.Module]:
    classes = config.classes if config.recipe == discrete_factors.RECIPE else 0
    encoder = build_encoder(config, data, 2 * config.latent_dim)
    decoder = ConvDecoder(config.latent_dim + classes, CHANNELS[::-1], data.event_shape, hidden=[WIDTH])
    decoder = Autocast(decoder) if config.bfloat16 else decoder
    model, guide = GaussianVAE(decoder, config.latent_dim), MeanFieldGaussian(encoder)
    if classes:
        model = SemiSupervisedVAE(AppendLabel(decoder, classes), config.latent_dim, classes)
        guide = LabelGuide(build_encoder(config, data, classes), encoder)
    if config.initial_scale is not None:
        for part in (guide, model):
            part.apply(partial(initialise, scale=config.initial_scale))
    return model, guide


def build_encoder(config: Config, data: Dataset, features: int) -> nn.Module:
    body = ConvEncoder(data.event_shape, CHANNELS, WIDTH)
    body = Autocast(body) if config.bfloat16 else body
    return nn.Sequential(body, nn.ReLU(), nn.Linear(WIDTH, features))


def initialise(layer: nn.Module, scale: float) -> None:
    """Weights N(0, scale^2), biases 0."""
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(layer.weight, std=scale)
        nn.init.zeros_(layer.bias)


def build_objective(config: Config, num_data: int) -> ppvae.Objective:
    return RECIPES[config.recipe][0](strength(config), config, num_data)


def critic(config: Config, classes: int = 0) -> dict:
    """The arguments of a recipe that describe its critic."""
    latent_dim = config.latent_dim + classes
    network = critic_network(latent_dim)
    network = Autocast(network) if config.bfloat16 else network
    optimizer = ppvae.adam(config.critic_learning_rate, betas=(0.5, 0.9))
    return {"latent_dim": latent_dim, "critic": network, "optimizer": optimizer}


def train(config: Config, model, guide, objective, data: Dataset, folder: Path) -> tuple[float, Representation]:
    """Train in stages and record the total correlation after each. Returns the seconds of training and the codes."""
    for stage in stages(config):
        last = train_to(stage, config, model, guide, objective, data, folder)
        if last["epoch"] == stage:  # otherwise the folder holds a longer run
            codes = represent(model, guide, data, progress=True)
        if last["epoch"] == stage and last["step"] < config.steps:
            row = {"step": last["step"], **correlations(codes, objective, config.seed)}
            record(folder, row | stage_scores(config, codes))
    if last["epoch"] != stage:
        raise ValueError(
            f"expected a run of at most {config.steps} steps in {folder}, got one of {last['step']} steps; "
            "choose another folder (--out)"
        )
    return last["seconds"], codes


def stage_scores(config: Config, codes: Representation) -> dict[str, float]:
    """The metrics of a checkpoint, if they are wanted."""
    leave_out = {*config.leave_out, "aggregate"}
    return score(codes, seed=config.seed, leave_out=leave_out).scores if config.stage_scores else {}


def train_to(stage: int, config: Config, model, guide, objective, data: Dataset, folder: Path) -> dict:
    """Train up to that many epochs, from the checkpoint in the folder if there is one. Returns the last metrics."""
    result = ppvae.fit(
        model,
        guide,
        objective,
        data,
        epochs=stage,
        batch_size=Batching(config.batch_size, steps_per_epoch=min(EPOCH, config.steps)),
        optimizer=ppvae.adam(config.learning_rate),
        run_dir=RunDir(folder, resume=True),
        device=config.device,
        seed=config.seed,
    )
    return result.metrics[-1]


def stages(config: Config) -> list[int]:
    """The epochs after which the total correlation is computed; the last one is the end of training."""
    epoch = min(EPOCH, config.steps)
    if config.steps < 1 or config.correlations < 1 or config.steps % epoch:
        raise ValueError(
            f"expected at most {EPOCH} steps or a multiple of it, and correlations of at least 1, got {config.steps} "
            f"and {config.correlations}"
        )
    epochs = config.steps // epoch
    return sorted({-(-epochs * (i + 1) // config.correlations) for i in range(config.correlations)})


def reconstruction_error(model, guide, data: Dataset, seed: int) -> float:
    """- E log p(x | z) over randomly chosen images, in nats."""
    rows = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[:IMAGES]
    return ppvae.evaluate_loss(ppvae.Reconstruction(), model, guide, data.take(rows), seed=seed)


def flat(report: dict) -> dict:
    """The report with the parts of the rate at its top level."""
    return {**(report["aggregate"] or {}), **report}


def print_report(report: dict, found: Disentanglement) -> None:
    table = found.table()
    table.title = f"{report['recipe']} {report['strength']:g}, {report['steps']} steps, seed {report['seed']}"
    table.add_row(
        "total correlation, later critic", f"{report['total_correlation_by_later_critic']:.3f}", "nats, biased"
    )
    table.add_row("reconstruction error", f"{report['reconstruction']:.2f}", "nats, - E log p(x | z)")
    Console().print(table)
    Console().print(f"{report['training_seconds']:.0f} s of training; {report['hardware']}")


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
