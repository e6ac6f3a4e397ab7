"""Training time of one M2 pair in ppvae and in stock Pyro.

Claim: ``ppvae.fit`` trains the pair of Pyro's semi-supervised VAE tutorial faster than stock Pyro, to the same losses.

Both have the tutorial's networks (one hidden layer of 500 softplus units, z of 50) with the same initial weights, and
train on the same binarized images in the same order with the same random numbers, so their losses must agree. The stock
twin follows the tutorial: concatenated [x, one-hot(y)], a sigmoid at the end of the decoder, TraceEnum_ELBO and
SVI.step; "unvalidated" is the same with Pyro's validation off. Rounds of the three alternate.

    python experiments/benchmarks/pyro_twin.py
"""

import time
from dataclasses import dataclass
from statistics import median

import pyro
import torch
from pyro import distributions as dist
from pyro.infer import SVI, TraceEnum_ELBO
from rich.console import Console
from rich.table import Table
from torch import nn

import ppvae
from ppvae import cli
from ppvae.data import Dataset, load
from ppvae.guides import LabelStyleGuide
from ppvae.models import SemiSupervisedVAE
from ppvae.nn import MLP, LabelledMLP
from ppvae.training import Batches, Batching, environment

LATENT_DIM, HIDDEN, CLASSES, PIXELS = 50, 500, 10, 784


@dataclass(frozen=True)
class Config:
    """Size of the comparison."""

    steps: int = 50
    """Training steps per round."""
    rounds: int = 5
    batch_size: int = 200
    seed: int = 0


class Twin(nn.Module):
    """The tutorial's networks in stock Pyro."""

    def __init__(self, model: SemiSupervisedVAE, guide: LabelStyleGuide):
        super().__init__()
        self.classifier = nn.Sequential(*guide.classifier.layers, nn.Softmax(-1))
        self.encoder = concatenated(guide.encoder)
        self.decoder = nn.Sequential(*concatenated(model.decoder), nn.Sigmoid())

    def model(self, x):
        pyro.module("twin", self)
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.OneHotCategorical(x.new_ones(CLASSES) / CLASSES))
            z = pyro.sample("z", dist.Normal(x.new_zeros(LATENT_DIM), 1.0).to_event(1))
            probs = self.decoder(concatenate(z, y))
            pyro.sample("x", dist.Bernoulli(probs, validate_args=False).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.OneHotCategorical(self.classifier(x)), infer={"enumerate": "parallel"})
            loc, log_scale = self.encoder(concatenate(x, y)).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


def concatenate(x, y):
    batch = torch.broadcast_shapes(x.shape[:-1], y.shape[:-1])
    return torch.cat([x.expand(*batch, -1), y.expand(*batch, -1)], -1)


def concatenated(network: LabelledMLP) -> nn.Sequential:
    """The network as a function of its input concatenated with a one-hot label."""
    split = network.first
    whole = nn.Linear(split.linear.in_features + CLASSES, split.linear.out_features)
    with torch.no_grad():
        whole.weight.copy_(torch.cat([split.linear.weight, split.embedding.weight.T], 1))
        whole.bias.copy_(split.linear.bias)
    return nn.Sequential(whole, *(clone(layer) for layer in network.rest))


def clone(layer: nn.Module) -> nn.Module:
    if not isinstance(layer, nn.Linear):
        return layer
    copy = nn.Linear(layer.in_features, layer.out_features)
    copy.load_state_dict(layer.state_dict())
    return copy


def make_pair(seed: int):
    torch.manual_seed(seed)
    labelled = {"hidden": [HIDDEN], "activation": nn.Softplus}
    model = SemiSupervisedVAE(LabelledMLP(LATENT_DIM, CLASSES, out_shape=PIXELS, **labelled), LATENT_DIM, CLASSES)
    encoder = LabelledMLP(PIXELS, CLASSES, out_shape=2 * LATENT_DIM, **labelled)
    return model, LabelStyleGuide(MLP(PIXELS, [HIDDEN], CLASSES, nn.Softplus), encoder)


def run_ours(config: Config, data: Dataset, seed: int) -> tuple[float, float]:
    """Mean loss per image in nats, and seconds of training."""
    model, guide = make_pair(seed)
    objective = ppvae.ELBO(analytic_kl=False)  # the twin has a sampled KL
    result = ppvae.fit(
        model, guide, objective, data, epochs=1, batch_size=config.batch_size, seed=seed, device="cpu", progress=False
    )
    return result.metrics[0]["loss"], result.metrics[0]["seconds"]


def run_stock(config: Config, data: Dataset, seed: int, validate: bool) -> tuple[float, float]:
    pyro.clear_param_store()
    twin = Twin(*make_pair(seed))
    torch.manual_seed(seed)
    with pyro.validation_enabled(validate):
        svi = SVI(twin.model, twin.guide, pyro.optim.Adam({"lr": 1e-3}), loss=TraceEnum_ELBO(max_plate_nesting=1))
        started, total = time.perf_counter(), 0.0
        for (batch,) in Batches(data, Batching(config.batch_size), seed=seed).epoch(0):
            total += svi.step(batch.x)
        return total / len(data), time.perf_counter() - started


def main(config: Config) -> float:
    rows = config.steps * config.batch_size
    images = load("mnist").train.unlabelled().take(slice(0, rows)).binarized(config.seed)
    data = Dataset(images.rows(slice(None)).flatten(1))
    kinds = {
        "ppvae": lambda seed: run_ours(config, data, seed),
        "stock Pyro": lambda seed: run_stock(config, data, seed, validate=True),
        "stock Pyro, unvalidated": lambda seed: run_stock(config, data, seed, validate=False),
    }
    runs = {kind: [] for kind in kinds}
    for seed in range(config.seed, config.seed + config.rounds):
        for kind, train in kinds.items():
            runs[kind].append(train(seed))
    return report(runs, rows)


def report(runs: dict[str, list[tuple[float, float]]], rows: int) -> float:
    table = Table("", "images/s", "time, ppvae = 1", "mean loss, nats", title=f"M2, hidden {HIDDEN}, z {LATENT_DIM}")
    seconds = {kind: median(second for _, second in results) for kind, results in runs.items()}
    for kind, results in runs.items():
        loss = sum(loss for loss, _ in results) / len(results)
        ratio = f"{seconds[kind] / seconds['ppvae']:.2f}"
        table.add_row(kind, f"{rows / seconds[kind]:.0f}", ratio, f"{loss:.4f}")
    console = Console()
    console.print(table)
    console.print(", ".join(f"{name} {value}" for name, value in environment(torch.device("cpu")).items()))
    apart = max(abs(a - b) for (a, _), (b, _) in zip(runs["ppvae"], runs["stock Pyro"], strict=True))
    console.print(f"the losses of a round differ by at most {apart:.1e} nats")
    return seconds["stock Pyro"] / seconds["ppvae"]


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
