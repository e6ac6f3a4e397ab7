"""Time of training steps under several objectives from the same start. Used by the other scripts in this folder."""

from collections.abc import Callable
from statistics import median
from typing import Protocol

import torch
from rich.console import Console
from rich.table import Table

import ppvae
from ppvae.data import Dataset
from ppvae.training import Batching, environment

Runs = dict[str, list[tuple[float, float]]]  # mean loss per datum, in nats, and seconds per step, for each round


class Sizes(Protocol):
    """The settings of a benchmark that are read here."""

    batch_size: int
    steps: int  # per round
    rounds: int
    seed: int


def timed(pair: Callable[[], tuple], objectives: Callable[[], dict], data: Dataset, sizes: Sizes) -> Runs:
    """Train a new pair under each objective in every round.

    Args:
        pair: () -> (model, guide), called under the seed of the round.
        objectives: () -> objectives by name, called in each round.
        data: the training data.
        sizes: batch size, steps, rounds, and the seed of the first round.
    """
    runs: Runs = {name: [] for name in objectives()}
    batching = Batching(sizes.batch_size, steps_per_epoch=sizes.steps)
    for seed in range(sizes.seed, sizes.seed + sizes.rounds):
        for name, objective in objectives().items():
            torch.manual_seed(seed)
            model, guide = pair()
            options = {"epochs": 1, "batch_size": batching, "device": "cpu", "seed": seed, "progress": False}
            (epoch,) = ppvae.fit(model, guide, objective, data, **options).metrics
            runs[name].append((epoch["loss"], epoch["seconds"] / sizes.steps))
    return runs


def report(title: str, runs: Runs, rival: str) -> None:
    """Print the median time per step of each objective, absolute and relative to one of them."""
    table = Table("", "ms per step", f"time, {rival} = 1", "mean loss, nats", title=title)
    seconds = {name: median(second for _, second in results) for name, results in runs.items()}
    for name, results in runs.items():
        loss = sum(loss for loss, _ in results) / len(results)
        table.add_row(name, f"{1e3 * seconds[name]:.1f}", f"{seconds[name] / seconds[rival]:.2f}", f"{loss:.3f}")
    console = Console()
    console.print(table)
    console.print(", ".join(f"{name} {value}" for name, value in environment(torch.device("cpu")).items()))
