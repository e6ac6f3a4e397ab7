"""dSprites by formula: images per second, compared with reading from memory and with a training step.

Claim: rendering gives at least 20,000 images of 64x64 per second on 2 CPU cores, and takes less than a tenth of the
training step of a convolutional VAE (batch 64, channels 32, 32, 64, 64, z 10).

The alternative is a table of rendered images in memory, uint8, from which rows are read by a shuffled index. Rounds
alternate.

    python experiments/benchmarks/sprites.py
    python experiments/benchmarks/sprites.py --batch-size 1024
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import ppvae
from ppvae import cli
from ppvae.data import Dataset, Sprites
from ppvae.guides import MeanFieldGaussian
from ppvae.models import GaussianVAE
from ppvae.nn import ConvDecoder, ConvEncoder
from ppvae.training import environment, resolve_device

LATENT_DIM, CHANNELS = 10, (32, 32, 64, 64)


@dataclass(frozen=True)
class Config:
    """Size of the comparison."""

    batch_size: int = 64
    batches: int = 50
    """Batches, and training steps, per round."""
    rounds: int = 5
    table_rows: int = 20_000
    """Images in the table."""
    resolution: int = 64
    device: str = "cpu"
    seed: int = 0


def seconds_per_batch(images: Sprites | Tensor, indices: list[Tensor]) -> float:
    """Seconds per batch; the time to draw the index is not included."""
    wait = torch.cuda.synchronize if images.device.type == "cuda" else lambda: None
    images[indices[0]]
    wait()
    start = time.perf_counter()
    for index in indices:
        images[index]
    wait()
    return (time.perf_counter() - start) / len(indices)


def seconds_per_step(config: Config, table: Tensor) -> float:
    """Seconds per training step on images in memory."""
    torch.manual_seed(config.seed)
    shape = tuple(table.shape[1:])
    model = GaussianVAE(ConvDecoder(LATENT_DIM, CHANNELS[::-1], shape), LATENT_DIM)
    guide = MeanFieldGaussian(ConvEncoder(shape, CHANNELS, 2 * LATENT_DIM))
    data = Dataset(table[: config.batches * config.batch_size], levels=256)
    options = {"epochs": 1, "batch_size": config.batch_size, "device": config.device, "progress": False}
    result = ppvae.fit(model, guide, ppvae.ELBO(), data, **options)
    return result.metrics[0]["seconds"] / result.metrics[0]["step"]


def main(config: Config) -> dict[str, float]:
    """Median seconds per batch, rendered and read from memory, and per training step."""
    device = resolve_device(config.device)
    sprites = Sprites(config.resolution, device)
    generator = torch.Generator().manual_seed(config.seed)
    table = sprites[torch.randint(len(sprites), (config.table_rows,), generator=generator)]

    def indices(rows: int) -> list[Tensor]:
        shape = (config.batches, config.batch_size)
        return list(torch.randint(rows, shape, generator=generator).to(device))

    ways: dict[str, Callable[[], float]] = {
        "rendered": lambda: seconds_per_batch(sprites, indices(len(sprites))),
        "table in memory": lambda: seconds_per_batch(table, indices(len(table))),
        "training step": lambda: seconds_per_step(config, table),
    }
    runs = [{name: way() for name, way in ways.items()} for _ in range(config.rounds)]
    seconds = {name: median(run[name] for run in runs) for name in ways}
    report(config, seconds)
    return seconds


def report(config: Config, seconds: dict[str, float]) -> None:
    side = config.resolution
    title = f"{side}x{side}, batch {config.batch_size}; convolutional VAE, channels {CHANNELS}, z {LATENT_DIM}"
    table = Table("", "images/s", "ms per batch", "time, table = 1", "share of a training step", title=title)
    for name, value in seconds.items():
        against, share = value / seconds["table in memory"], value / seconds["training step"]
        rate = f"{config.batch_size / value:,.0f}"
        table.add_row(name, rate, f"{1e3 * value:.2f}", f"{against:.1f}", f"{100 * share:.1f}%")
    console = Console()
    console.print(table)
    machine = environment(resolve_device(config.device))
    console.print(", ".join(f"{name} {value}" for name, value in machine.items()))


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
