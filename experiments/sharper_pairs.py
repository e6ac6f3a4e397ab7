"""The pair of sharper_reconstructions.py, and its three objectives.

Encoder and decoder are convolutional; the decoder ends in a sigmoid, so that mean images lie in [0, 1] as the data do.
"""

from collections.abc import Callable

import torch
from schedules import half_cosine, steps_of
from torch import Tensor, nn

import ppvae
from ppvae.data import Dataset
from ppvae.distributions.likelihoods import Gaussian
from ppvae.guides import MeanFieldGaussian
from ppvae.models import GaussianVAE
from ppvae.nn import ConvDecoder, ConvEncoder
from ppvae.training import RunDir

Shape = tuple[int, ...]
CHANNELS, HIDDEN = (16, 32), 256
FITTED = 5000  # training images, from which the scale of the noise is fitted
BETAS = (0.5, 0.999)  # of Adam, as is usual with discriminators (Radford et al. 2016, "DCGAN")


class Stages(nn.Module):
    """The outputs of the rectifiers of some convolutions of images (N, H, W), one for each stage."""

    def __init__(self, convolutions: nn.Sequential):
        super().__init__()
        self.convolutions = convolutions

    def forward(self, x: Tensor) -> list[Tensor]:
        x, stages = x.unsqueeze(1), []
        for layer in self.convolutions:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                stages.append(x)
        return stages


def pair(shape: Shape, latent_dim: int) -> tuple[GaussianVAE, MeanFieldGaussian]:
    encoder = ConvEncoder(shape, CHANNELS, 2 * latent_dim, hidden=[HIDDEN])
    decoder = nn.Sequential(ConvDecoder(latent_dim, CHANNELS[::-1], shape, hidden=[HIDDEN]), nn.Sigmoid())
    return GaussianVAE(decoder, latent_dim, Gaussian(0.3, learned=True)), MeanFieldGaussian(encoder)


def discriminator(shape: Shape) -> ppvae.Discriminator:
    """Features are the output of the second convolution, normalised image by image, which keeps their size."""
    first, second = CHANNELS
    features = nn.Sequential(
        nn.Unflatten(1, (1, shape[0])),
        nn.Conv2d(1, first, 4, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(first, second, 4, stride=2, padding=1),
        nn.GroupNorm(4, second),
        nn.LeakyReLU(0.2),
    )
    size = second * (shape[0] // 4) * (shape[1] // 4)
    head = nn.Sequential(nn.Flatten(), nn.Linear(size, HIDDEN), nn.LeakyReLU(0.2), nn.Linear(HIDDEN, 1))
    return ppvae.Discriminator(features, head)


def objectives(config, shape: Shape, classifier: nn.Sequential) -> dict[str, Callable[[], ppvae.Objective]]:
    """An objective for each kind of reconstruction; ``classifier`` ends in a ConvClassifier, trained on the data."""

    def features() -> ppvae.Objective:
        return ppvae.ELBO() + ppvae.FeatureReconstruction(Stages(classifier[-1].convolutions), config.feature_weight)

    def adversarial() -> ppvae.Objective:
        optimizer = ppvae.adam(config.discriminator_rate, betas=BETAS)
        term = ppvae.AdversarialReconstruction(
            discriminator(shape), config.adversarial_weight, config.discriminator_feature_weight, optimizer
        )
        return ppvae.ELBO() + term

    return {"pixel": ppvae.ELBO, "features": features, "adversarial": adversarial}


def trained(config, kind: str, objective: ppvae.Objective, data: Dataset, folder) -> tuple[GaussianVAE, nn.Module]:
    """The pair, trained in its own folder or read from there, in evaluation mode.

    Only the likelihood of the pixel row learns its noise in training; :func:`fit_noise` fits that of the others.
    """
    torch.manual_seed(config.seed)
    model, guide = pair(data.event_shape, config.latent_dim)
    steps = steps_of(config.epochs, len(data), config.batch_size)
    ppvae.fit(
        model,
        guide,
        objective,
        data,
        epochs=config.epochs,
        batch_size=config.batch_size,
        optimizer=ppvae.adam(1e-3, schedule=half_cosine(steps), betas=BETAS),
        run_dir=RunDir(folder, resume=True),
        device=config.device,
        seed=config.seed,
    )
    if kind != "pixel":
        fit_noise(model, guide, data)
    return model.eval(), guide.eval()


@torch.no_grad()
def fit_noise(model: GaussianVAE, guide: nn.Module, data: Dataset) -> None:
    """Set the scale of the Gaussian noise to the root of E_q (x - x~)^2 per pixel, the maximum of E_q log p(x | z)."""
    parameter = model.likelihood.log_scale
    x = data.grey(slice(0, FITTED)).to(parameter.device)
    error = ppvae.reconstruct(model, guide, x, num_samples=1)[0] - x
    parameter.copy_(error.square().mean().log() / 2)
