"""Proposals of low rank plus a diagonal, and proposals with a full covariance: k-hat, effective sample size, time.

Claim: up to 256 latents the full covariance gives the most effective draws a second, so ppvae has no other form.

    q(z) = N(m, diag(s^2) + F F'),   F: D x rank

has D (rank + 2) numbers where a full covariance has D (D + 3) / 2. It is fitted here by Adam on the path gradient of
the evidence bound, from the guide's moments. The proposal "full" is the longer fit of ``proposal="auto"``. The pairs
are those of believable_log_p.py, which are trained where they are missing. Rounds of the proposals alternate.

    python experiments/low_rank.py
"""

import math
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from mnist_pairs import trained
from pyro import distributions as dist
from rich.console import Console
from rich.table import Table
from torch import Tensor

import ppvae
from ppvae import cli
from ppvae.data import load
from ppvae.evaluation.likelihood.stages import AUTO


@dataclass(frozen=True)
class Config:
    """Size of the comparison."""

    pairs: tuple[str, ...] = ("VAE", "VAE, 128 latents", "VAE, 256 latents")
    """Names in mnist_pairs.py."""
    ranks: tuple[int, ...] = (10, 20, 50)
    images: int = 24
    particles: int = 1000
    rounds: int = 3
    seed: int = 0
    out: Path = Path("runs/believable-log-p")


@dataclass(frozen=True)
class LowRank:
    """N(m, diag(s^2) + F F') of the best evidence bound of each datum."""

    rank: int
    steps: int = 300
    draws: int = 16
    learning_rate: float = 0.03
    scale: float = 1.05

    def fit(self, log_joint, start) -> dist.LowRankMultivariateNormal:
        spread = start.scale_tril.diagonal(dim1=-2, dim2=-1)
        parameters = [torch.zeros_like(spread), torch.zeros_like(spread), 0.01 * torch.randn(*spread.shape, self.rank)]
        adam = torch.optim.Adam([each.requires_grad_() for each in parameters])
        for step in range(self.steps):
            adam.param_groups[0]["lr"] = self.learning_rate * 0.5 * (1 + math.cos(math.pi * step / self.steps))
            z = density(start.loc, spread, *parameters).rsample((self.draws,))
            fixed = density(start.loc, spread, *(each.detach() for each in parameters))
            loss = (fixed.log_prob(z) - log_joint(z)).mean(0).sum()
            adam.zero_grad()
            loss.backward(inputs=parameters)
            adam.step()
        return density(start.loc, spread, *(each.detach() for each in parameters), scale=self.scale)


def density(loc: Tensor, spread: Tensor, mean: Tensor, log_scale: Tensor, factor: Tensor, scale: float = 1.0):
    """Its parameters are in units of the guide's standard deviations."""
    diagonal = (scale * spread * log_scale.exp()).square()
    return dist.LowRankMultivariateNormal(loc + mean * spread, scale * spread.unsqueeze(-1) * factor, diagonal)


def main(config: Config) -> dict:
    data = load("mnist")
    x = data.test.binarized(config.seed).batch(slice(0, config.images)).x
    proposals = {"guide": None, "full": AUTO[1].proposal} | {f"rank {rank}": LowRank(rank) for rank in config.ranks}
    table = Table("pair", "proposal", "k-hat below limit", "median ESS", "log p(x)", "ms an image")
    results = {}
    for name in config.pairs:
        pair, found, seconds = trained(name, data.train, config.out), {}, defaultdict(list)
        for _ in range(config.rounds):
            for which, proposal in proposals.items():
                started = time.perf_counter()
                found[which] = estimated(pair, x, proposal, config)
                seconds[which].append(time.perf_counter() - started)
        for which, result in found.items():
            numbers = f"{1 - result.khat_bad:.0%}", f"{result.median_ess:.0f}", f"{result.mean:.2f}"
            table.add_row(name, which, *numbers, f"{1000 * median(seconds[which]) / len(x):.0f}")
        results[name] = found
    Console().print(table)
    return results


def estimated(pair, x: Tensor, proposal, config: Config) -> ppvae.LogMarginal:
    return ppvae.log_marginal(*pair, x, proposal=proposal, num_particles=config.particles, seed=config.seed)


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
