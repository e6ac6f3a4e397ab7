"""What the objectives for disentanglement cost: a training step of each beside one of the plain VAE.

Claim: with batches of 64 and z of 10 a step of FactorVAE, which trains a critic of five layers of 1,000 units on a
second batch, costs at most 2.2 times the VAE's on a CPU; beta-TCVAE's at most 1.15 times. The networks are FactorVAE's,
the images dSprites by formula, rendered within the step. The rounds take turns.

    python experiments/benchmarks/disentangling.py
    python experiments/benchmarks/disentangling.py --bfloat16
"""

from dataclasses import dataclass

from ppvae.guides import MeanFieldGaussian
from ppvae.models import GaussianVAE
from steps import Runs, report, timed

import ppvae
from ppvae import cli
from ppvae.data import Dataset, Sprites
from ppvae.nn import Autocast, ConvDecoder, ConvEncoder

LATENT_DIM, CHANNELS, WIDTH = 10, (32, 32, 64, 64), 128


@dataclass(frozen=True)
class Config:
    """Size of the comparison."""

    batch_size: int = 64
    steps: int = 30
    """Training steps a round."""
    rounds: int = 5
    bfloat16: bool = False
    """Products of all networks in bfloat16."""
    resolution: int = 64
    seed: int = 0


def pair(config: Config) -> tuple:
    shape = (config.resolution, config.resolution)
    encoder = ConvEncoder(shape, CHANNELS, 2 * LATENT_DIM, hidden=[WIDTH])
    decoder = ConvDecoder(LATENT_DIM, CHANNELS[::-1], shape, hidden=[WIDTH])
    if config.bfloat16:
        encoder, decoder = Autocast(encoder), Autocast(decoder)
    return GaussianVAE(decoder, LATENT_DIM), MeanFieldGaussian(encoder)


def objectives(config: Config, num_data: int) -> dict[str, ppvae.Objective]:
    found = {
        "VAE": ppvae.ELBO(),
        "beta-VAE": ppvae.beta_vae(4.0),
        "FactorVAE": ppvae.factor_vae(35.0, LATENT_DIM),
        "beta-TCVAE": ppvae.beta_tcvae(num_data),
        "DIP-VAE-II": ppvae.dip_vae_ii(10.0),
        "InfoVAE": ppvae.info_vae(),
    }
    if config.bfloat16:
        for critic in found["FactorVAE"].adversaries:
            critic.network = Autocast(critic.network)
    return found


def main(config: Config) -> Runs:
    data = Dataset(Sprites(config.resolution))
    runs = timed(
        lambda: pair(config),
        lambda: objectives(config, len(data)),
        data,
        config.batch_size,
        config.steps,
        config.rounds,
        config.seed,
    )
    precision = "bfloat16" if config.bfloat16 else "float32"
    report(f"dSprites, batch {config.batch_size}, z {LATENT_DIM}, {precision}", runs, "VAE")
    return runs


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
