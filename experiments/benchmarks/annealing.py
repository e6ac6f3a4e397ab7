"""Annealed importance sampling: time of ``ppvae.ais`` and of the same sampler written for one decoder.

Claim: log p(x) of 100 binarized MNIST images with 16 chains, 1,000 temperatures and 10 leapfrog steps takes less than
10 minutes on 2 cores.

The comparison is plain torch without Pyro, with log densities written by hand for a standard normal prior and Bernoulli
pixels. Path, pilot and transitions are the same, so the two estimates must agree within their standard errors. Rounds
of both alternate, with few temperatures; the time per transition, pilot included, is extrapolated to the full number.
``--full`` runs all temperatures. The decoder is first trained for one short epoch.

    python experiments/benchmarks/annealing.py
    python experiments/benchmarks/annealing.py --full
"""

import math
import time
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

import ppvae
from ppvae import cli
from ppvae.data import load
from ppvae.evaluation.likelihood.annealing import (
    PILOT_GAIN,
    PILOT_TEMPERATURES,
    PILOT_TRANSITIONS,
    TARGET_ACCEPTANCE,
    Annealing,
)
from ppvae.guides import MeanFieldGaussian
from ppvae.models import GaussianVAE
from ppvae.nn import MLP
from ppvae.training import environment


@dataclass(frozen=True)
class Config:
    """Size of the comparison."""

    images: int = 100
    chains: int = 16
    leapfrog_steps: int = 10
    temperatures: int = 1000
    timed_temperatures: int = 20
    """Temperatures in each round of the comparison."""
    rounds: int = 3
    full: bool = False
    """Also run all temperatures."""
    latent_dim: int = 50
    hidden: tuple[int, ...] = (200, 200)
    training_images: int = 20_000
    seed: int = 0


class Plain:
    """AIS from the prior by HMC, for z ~ N(0, I) and Bernoulli pixels."""

    def __init__(self, decoder: torch.nn.Module, x: Tensor, annealing: Annealing):
        self.decoder, self.x, self.annealing = decoder, x.flatten(1), annealing

    def estimate(self, seed: int) -> tuple[Tensor, Tensor]:
        """Estimate of log p(x) of each image, and its standard error."""
        torch.manual_seed(seed)
        sizes, betas = self.pilot(), self.annealing.betas(self.annealing.temperatures).tolist()
        z, log_weight = self.start(), 0.0
        for step, (before, after) in enumerate(pairwise(betas)):
            with torch.no_grad():
                log_weight = log_weight + (after - before) * self.log_likelihood(z).double()
            if step < self.annealing.temperatures - 1:
                z, _ = self.transition(z, after, sizes[step])
        total, chains = log_weight.logsumexp(0), len(log_weight)
        share = (log_weight - total).exp() * chains
        return total - math.log(chains), share.std(0) / chains**0.5

    def start(self) -> Tensor:
        return torch.randn(self.annealing.chains, len(self.x), self.decoder.in_shape[0])

    def log_likelihood(self, z: Tensor) -> Tensor:
        logits = self.decoder.layers(z)
        return -F.binary_cross_entropy_with_logits(logits, self.x.expand_as(logits), reduction="none").sum(-1)

    def gradient(self, z: Tensor, beta: float) -> tuple[Tensor, Tensor]:
        z = z.detach().requires_grad_()
        density = beta * self.log_likelihood(z) - 0.5 * z.square().sum(-1)
        return density.detach(), torch.autograd.grad(density.sum(), z)[0]

    def transition(self, z: Tensor, beta: float, size: Tensor) -> tuple[Tensor, Tensor]:
        size, velocity = size.unsqueeze(-1), torch.randn_like(z)
        density, gradient = self.gradient(z, beta)
        energy, proposal = density - 0.5 * velocity.square().sum(-1), z
        for _ in range(self.annealing.leapfrog_steps):
            velocity = velocity + 0.5 * size * gradient
            proposal = proposal + size * velocity
            density, gradient = self.gradient(proposal, beta)
            velocity = velocity + 0.5 * size * gradient
        accepted = torch.rand_like(density).log() < density - 0.5 * velocity.square().sum(-1) - energy
        return torch.where(accepted.unsqueeze(-1), proposal, z), accepted

    def pilot(self) -> Tensor:
        """Step sizes for each temperature and image, (T, B)."""
        coarse = self.annealing.betas(min(PILOT_TEMPERATURES, self.annealing.temperatures))[1:]
        z, size, found = self.start(), torch.full((len(self.x),), self.annealing.first_step_size), []
        for beta in coarse.tolist():
            for _ in range(PILOT_TRANSITIONS):
                z, accepted = self.transition(z, beta, size)
                size = size * (PILOT_GAIN * (accepted.float().mean(0) - TARGET_ACCEPTANCE)).exp()
            found.append(size)
        nearest = torch.bucketize(self.annealing.betas(self.annealing.temperatures)[1:], coarse)
        return torch.stack(found)[nearest.clamp(max=len(coarse) - 1)]


def transitions(temperatures: int) -> int:
    """The number of transitions of a whole run, pilot included."""
    return PILOT_TRANSITIONS * min(PILOT_TEMPERATURES, temperatures) + temperatures - 1


def trained_model(config: Config) -> GaussianVAE:
    splits = load("mnist")
    torch.manual_seed(config.seed)
    model = GaussianVAE(MLP(config.latent_dim, config.hidden, splits.train.event_shape), config.latent_dim)
    guide = MeanFieldGaussian(MLP(splits.train.event_shape, config.hidden, 2 * config.latent_dim))
    data = splits.train.unlabelled().take(slice(0, config.training_images))
    ppvae.fit(model, guide, ppvae.ELBO(), data, epochs=1, seed=config.seed, device="cpu", progress=False)
    return model.requires_grad_(False)


def main(config: Config) -> dict[str, dict]:
    """Seconds per transition in each round, and estimates with their standard errors, by kind."""
    model = trained_model(config)
    x = load("mnist").test.unlabelled().binarized(config.seed).rows(slice(0, config.images))
    kinds = {"ppvae": ours, "plain torch": plain}
    seconds, estimates = {kind: [] for kind in kinds}, {}
    for turn in range(config.rounds):
        for kind, estimate in kinds.items():
            started = time.perf_counter()
            estimates[kind] = estimate(model, x, settings(config, config.timed_temperatures), config.seed + turn)
            seconds[kind].append((time.perf_counter() - started) / transitions(config.timed_temperatures))
    report(config, seconds, estimates)
    if config.full:
        report_full(config, model, x)
    return {"seconds": seconds, "estimates": estimates}


def settings(config: Config, temperatures: int) -> Annealing:
    return Annealing(temperatures, config.chains, config.leapfrog_steps)


def ours(model: GaussianVAE, x: Tensor, annealing: Annealing, seed: int) -> tuple[Tensor, Tensor]:
    found = ppvae.ais(model, x, annealing=annealing, seed=seed)
    return found.value, found.standard_error


def plain(model: GaussianVAE, x: Tensor, annealing: Annealing, seed: int) -> tuple[Tensor, Tensor]:
    return Plain(model.decoder, x, annealing).estimate(seed)


def report(config: Config, seconds: dict, estimates: dict) -> None:
    title = f"AIS, {config.images} images, {config.chains} chains, {config.leapfrog_steps} leapfrog steps, z "
    title += f"{config.latent_dim}, hidden {config.hidden}"
    bound = f"log p(x), {config.timed_temperatures} temperatures, nats"
    heads = ("ms per transition", "time, ppvae = 1", f"minutes for {config.temperatures}", bound)
    table = Table("", *heads, title=title)
    typical = {kind: median(times) for kind, times in seconds.items()}
    for kind, second in typical.items():
        minutes = second * transitions(config.temperatures) / 60
        ratio = f"{second / typical['ppvae']:.2f}"
        table.add_row(kind, f"{1e3 * second:.0f}", ratio, f"{minutes:.1f}", mean_of(*estimates[kind]))
    console = Console()
    console.print(table)
    console.print(", ".join(f"{name} {value}" for name, value in environment(torch.device("cpu")).items()))


def report_full(config: Config, model: GaussianVAE, x: Tensor) -> None:
    started = time.perf_counter()
    found = ours(model, x, settings(config, config.temperatures), config.seed)
    minutes = (time.perf_counter() - started) / 60
    Console().print(f"ppvae, {config.temperatures} temperatures: {minutes:.1f} minutes, {mean_of(*found)} nats")


def mean_of(value: Tensor, error: Tensor) -> str:
    return f"{value.mean():.2f} ± {error.square().sum().sqrt() / len(error):.2f}"


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
