"""Cost of objectives for disentanglement: time of a training step relative to the VAE.

Claim: on a CPU, with batches of 64 and z of 10, a step of FactorVAE, which trains a critic of five layers of 1,000
units on a second batch, takes at most 2.2 times as long as a step of the VAE, and one of beta-TCVAE at most 1.15 times.
The networks are FactorVAE's. The images are dSprites, rendered by formula within the step. Rounds of the objectives
alternate.

    python experiments/benchmarks/disentangling.py
    python experiments/benchmarks/disentangling.py --bfloat16
"""

from dataclasses import dataclass

from steps import Runs, report, timed

import ppvae
from ppvae import cli
from ppvae.data import Dataset, Sprites
from ppvae.guides import MeanFieldGaussian
from ppvae.models import GaussianVAE
from ppvae.nn import Autocast, ConvDecoder, ConvEncoder
from ppvae.objectives import critic_network

LATENT_DIM, CHANNELS, WIDTH = 10, (32, 32, 64, 64), 128


@dataclass(frozen=True)
class Config:
    """Size of the comparison."""

    batch_size: int = 64
    steps: int = 30
    """Training steps per round."""
    rounds: int = 5
    bfloat16: bool = False
    """Compute products of all networks in bfloat16."""
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
    critic = critic_network(LATENT_DIM)
    return {
        "VAE": ppvae.ELBO(),
        "beta-VAE": ppvae.beta_vae(4.0),
        "FactorVAE": ppvae.factor_vae(35.0, LATENT_DIM, critic=Autocast(critic) if config.bfloat16 else critic),
        "beta-TCVAE": ppvae.beta_tcvae(num_data),
        "DIP-VAE-II": ppvae.dip_vae_ii(10.0),
        "InfoVAE": ppvae.info_vae(alpha=0.0),
    }


def main(config: Config) -> Runs:
    data = Dataset(Sprites(config.resolution))
    runs = timed(lambda: pair(config), lambda: objectives(config, len(data)), data, config)
    precision = "bfloat16" if config.bfloat16 else "float32"
    report(f"dSprites, batch {config.batch_size}, z {LATENT_DIM}, {precision}", runs, "VAE")
    return runs


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
