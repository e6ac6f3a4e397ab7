"""Expectation maximisation as two objectives that alternate, on a Gaussian mixture.

Claim: where q is the exact posterior, the ELBO equals the evidence. A step of the model that raises the ELBO with q
held fixed therefore cannot lower the evidence (Neal and Hinton 1998, "A View of the EM Algorithm that Justifies
Incremental, Sparse, and Other Variants"). From the same start, EM here and in scikit-learn end at the same evidence.

Data: the first two principal components of scikit-learn's digits.

    python experiments/em_mixture.py

Writes to the run folder: report.json and evidence.png.
"""

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pyro
import torch
from matplotlib.figure import Figure
from pyro import distributions as dist
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sklearn import datasets, decomposition, mixture
from torch import Tensor

import ppvae
from ppvae import cli
from ppvae.models import GaussianMixture


@dataclass(frozen=True)
class Config:
    """Settings of one run."""

    components: int = 5
    iterations: int = 300
    """Maximum number of rounds of E and M."""
    tolerance: float = 1e-10
    """EM stops when the mean log evidence rises by less than this in a round, in nats."""
    seed: int = 0
    out: Path = Path("runs/em-mixture")


class Responsibilities(ppvae.Guide):
    """q(z | x) as a table with one row per datum. The E step sets it; the M step does not change it."""

    def __init__(self, logits: Tensor):
        super().__init__()
        self.register_buffer("logits", logits)

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Categorical(logits=self.logits), infer={"enumerate": "parallel"})


def main(config: Config) -> dict:
    torch.manual_seed(config.seed)
    x = torch.from_numpy(decomposition.PCA(2).fit_transform(datasets.load_digits().data))
    start = x[torch.randperm(len(x))[: config.components]]
    scale = x.std().item()
    model = GaussianMixture(start, scale).double()
    evidence, gaps = expectation_maximisation(model, x, config)
    report = {
        "components": config.components,
        "seed": config.seed,
        "rounds": len(evidence) - 1,
        "log_evidence": evidence[-1],
        "scikit_learn": scikit_learn(x, start, scale),
        "largest_fall": max(0.0, *(before - after for before, after in pairwise(evidence))),
        "largest_gap_after_the_E_step": max(gaps),
    }
    config.out.mkdir(parents=True, exist_ok=True)
    (config.out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    picture(evidence, report["scikit_learn"]).savefig(config.out / "evidence.png", dpi=120)
    print_table(report)
    return report


def expectation_maximisation(model: GaussianMixture, x: Tensor, config: Config) -> tuple[list[float], list[float]]:
    """The mean log evidence before the first round and after each round, and |evidence - ELBO| after each E step."""
    evidence, gaps = [model.log_evidence(x).mean().item()], []
    for _ in track(range(config.iterations), "EM"):
        with torch.no_grad():
            guide = Responsibilities(model.posterior(x).logits)
        bound = -ppvae.ELBO().per_datum(ppvae.draw(model, guide, x)).mean().item()
        gaps.append(abs(bound - evidence[-1]))
        model_step(model, guide, x)
        evidence.append(model.log_evidence(x).mean().item())
        if evidence[-1] - evidence[-2] < config.tolerance:
            break
    return evidence, gaps


def model_step(model: GaussianMixture, guide: Responsibilities, x: Tensor) -> None:
    """Maximise the ELBO over the parameters of the model, with the guide fixed."""
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=100, tolerance_grad=1e-9, line_search_fn="strong_wolfe")
    objective = ppvae.ELBO()

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = objective.per_datum(ppvae.draw(model, guide, x)).mean()
        loss.backward()
        return loss

    optimizer.step(closure)


def scikit_learn(x: Tensor, start: Tensor, scale: float) -> float:
    """Mean log evidence of scikit-learn's mixture from the same start, in nats."""
    count = len(start)
    other = mixture.GaussianMixture(
        count,
        covariance_type="spherical",
        tol=1e-12,
        reg_covar=0.0,
        max_iter=10_000,
        weights_init=[1 / count] * count,
        means_init=start.numpy(),
        precisions_init=[scale**-2] * count,
    )
    return float(other.fit(x.numpy()).score(x.numpy()))


def picture(evidence: list[float], reference: float) -> Figure:
    figure = Figure(figsize=(5, 3.5), layout="constrained")
    panel = figure.subplots()
    panel.plot(evidence, marker=".", label="ppvae")
    panel.axhline(reference, color="0.6", linestyle="--", label="scikit-learn, at convergence")
    panel.set(xlabel="round of E and M", ylabel="log p(x), nats per datum")
    panel.legend()
    return figure


def print_table(report: dict) -> None:
    table = Table("EM on a Gaussian mixture", "nats per datum")
    table.add_row(f"log evidence after {report['rounds']} rounds", f"{report['log_evidence']:.8f}")
    table.add_row("scikit-learn from the same start", f"{report['scikit_learn']:.8f}")
    table.add_row("largest decrease of the evidence in a round", f"{report['largest_fall']:.1e}")
    table.add_row(
        "largest gap between evidence and ELBO after an E step", f"{report['largest_gap_after_the_E_step']:.1e}"
    )
    Console().print(table)


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
