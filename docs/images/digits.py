"""The picture in the README: the pair of its ten lines, on test digits. ``python docs/images/digits.py`` (seed 0)."""

from pathlib import Path

import torch

import ppvae
from ppvae import plots
from ppvae.guides import MeanFieldGaussian
from ppvae.models import GaussianVAE

torch.manual_seed(0)
digits = ppvae.data.load("digits")
model = GaussianVAE(ppvae.nn.MLP(8, [64], (8, 8)), latent_dim=8)
guide = MeanFieldGaussian(ppvae.nn.MLP((8, 8), [64], 2 * 8))
ppvae.fit(model, guide, ppvae.IWAE(num_particles=5), digits.train, epochs=50)

x = digits.test.binarized(seed=0).rows(slice(0, 12))
again = ppvae.reconstruct(model, guide, x)
images = ppvae.sample(model, 12)
figure = plots.image_grid(torch.stack([x, again, images]), ["data", "reconstructions", "samples"])
figure.savefig(Path(__file__).with_suffix(".png"), dpi=80)
