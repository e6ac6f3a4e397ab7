"""Training steps under several objectives, timed in turns from the same start. Used by the other scripts here."""

from collections.abc import Callable
from statistics import median

import torch
from rich.console import Console
from rich.table import Table

import ppvae
from ppvae.data import Dataset
from ppvae.training import environment

Runs = dict[str, list[tuple[float, float]]]  # mean loss per datum, in nats, and seconds a step, of each round


def timed(
    pair: Callable[[], tuple],
    objectives: Callable[[], dict],
    data: Dataset,
    batch_size: int,
    steps: int,
    rounds: int,
    seed: int,
) -> Runs:
    """Train a new pair under each objective, for one round after the other.

    Args:
        pair: () -> (model, guide), made under the round's seed.
        objectives: () -> objectives by name, made anew for each round.
        data: what is trained on.
        batch_size: data a step.
        steps: of a round.
        rounds: how many.
        seed: of the first round.
    """
    runs: Runs = {name: [] for name in objectives()}
    options = {"epochs": 1, "steps_per_epoch": steps, "batch_size": batch_size, "device": "cpu", "progress": False}
    for each in range(seed, seed + rounds):
        for name, objective in objectives().items():
            torch.manual_seed(each)
            model, guide = pair()
            last = ppvae.fit(model, guide, objective, data, seed=each, **options).metrics[0]
            runs[name].append((last["loss"], last["seconds"] / steps))
    return runs


def report(title: str, runs: Runs, rival: str) -> None:
    """Median milliseconds a step, beside those of one of the objectives."""
    table = Table("", "ms a step", f"time, {rival} = 1", "mean loss, nats", title=title)
    seconds = {name: median(second for _, second in results) for name, results in runs.items()}
    for name, results in runs.items():
        loss = sum(loss for loss, _ in results) / len(results)
        table.add_row(name, f"{1e3 * seconds[name]:.1f}", f"{seconds[name] / seconds[rival]:.2f}", f"{loss:.3f}")
    console = Console()
    console.print(table)
    console.print(", ".join(f"{name} {value}" for name, value in environment(torch.device("cpu")).items()))
