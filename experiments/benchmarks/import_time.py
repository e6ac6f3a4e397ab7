"""The time and memory of ``import ppvae``, compared with the import of torch and Pyro.

Claim: ``import ppvae`` takes at most 1.2 times as long as ``import torch, pyro``, since scikit-learn, SciPy,
Matplotlib, ArviZ and torchvision are imported where they are used.

Each import runs in a new interpreter. The rounds alternate between the two, after one of each that is not counted.

    python experiments/benchmarks/import_time.py
    python experiments/benchmarks/import_time.py --rounds 20
"""

import subprocess
import sys
import time
from dataclasses import dataclass
from statistics import median

import torch
from rich.console import Console
from rich.table import Table

from ppvae import cli
from ppvae.training import environment

STATEMENTS = ("import torch, pyro", "import ppvae")
PEAK = "; import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"

Runs = dict[str, list[tuple[float, float]]]  # seconds and peak MiB of each round, by statement


@dataclass(frozen=True)
class Config:
    """Size of the comparison."""

    rounds: int = 10


def timed(statement: str) -> tuple[float, float]:
    """Seconds and peak MiB of a new interpreter that runs the statement."""
    started = time.perf_counter()
    result = subprocess.run([sys.executable, "-c", statement + PEAK], check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    return seconds, int(result.stdout) / (1024**2 if sys.platform == "darwin" else 1024)


def main(config: Config) -> Runs:
    runs: Runs = {statement: [] for statement in STATEMENTS}
    for number in range(config.rounds + 1):
        for statement in STATEMENTS:
            result = timed(statement)
            if number > 0:  # the first round reads the files from disk
                runs[statement].append(result)
    report(runs)
    return runs


def report(runs: Runs) -> None:
    """Print the medians, and the median of the ratios of each round."""
    base = runs[STATEMENTS[0]]
    table = Table("", "seconds", f"time, {STATEMENTS[0]} = 1", "peak MiB", title="Imports, medians")
    for statement, results in runs.items():
        ratio = median(seconds / other for (seconds, _), (other, _) in zip(results, base, strict=True))
        seconds, memory = (median(column) for column in zip(*results, strict=True))
        table.add_row(statement, f"{seconds:.2f}", f"{ratio:.2f}", f"{memory:.0f}")
    console = Console()
    console.print(table)
    console.print(", ".join(f"{name} {value}" for name, value in environment(torch.device("cpu")).items()))


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
