"""Generator, guide and discriminator of infogan.py."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ppvae.guides import RecognitionGuide
from ppvae.models import ImplicitModel
from ppvae.nn import Autocast, ConvDecoder, ConvEncoder, CorruptInput, GaussianNoise, RandomWarp

LEAKY = partial(nn.LeakyReLU, 0.1)  # the slope of Chen et al. 2016


@dataclass(frozen=True)
class Networks:
    """The sizes of the three networks; see the settings of infogan.py."""

    shape: tuple[int, ...]
    classes: int
    codes: int
    noise: int
    channels: tuple[int, ...]
    width: int
    shared: bool
    guide_noise: float
    views: bool
    spectral: bool
    bfloat16: bool


def build(networks: Networks) -> tuple[ImplicitModel, RecognitionGuide, nn.Module]:
    """The generator, the guide of its codes, and the discriminator."""
    latents = networks.classes + networks.codes + networks.noise
    decoder = ConvDecoder(latents, networks.channels[::-1], networks.shape, normalisation=nn.BatchNorm2d)
    generator = nn.Sequential(in_bfloat16(networks, decoder), nn.Sigmoid())
    model = ImplicitModel(generator, networks.classes, networks.codes, networks.noise)
    trunk = convolutions(networks)
    discriminator = nn.Sequential(trunk, LEAKY(), nn.Linear(networks.width, 1))
    if networks.spectral:
        discriminator.apply(normalise)
    head = nn.Sequential(
        LEAKY(),
        nn.Linear(networks.width, networks.width),
        LEAKY(),
        nn.Linear(networks.width, networks.classes + networks.codes),
    )
    recognition: nn.Module = nn.Sequential(trunk if networks.shared else convolutions(networks), head)
    if networks.views:
        recognition = nn.Sequential(RandomThickness(), RandomWarp(22.0, 0.4, 0.2, 0.1, 0.05), recognition)
    if networks.guide_noise:
        recognition = CorruptInput(recognition, GaussianNoise(networks.guide_noise))
    return model, RecognitionGuide(recognition, networks.classes, networks.codes), discriminator


class RandomThickness(nn.Module):
    """Images (N, H, W) with strokes that are thicker or thinner by up to a pixel; the identity in evaluation mode."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        images, most = x.unsqueeze(1), 2 * torch.rand(len(x), 1, 1, 1, device=x.device) - 1
        thick, thin = nn.functional.max_pool2d(images, 3, 1, 1), -nn.functional.max_pool2d(-images, 3, 1, 1)
        return (images + most.clamp(min=0) * (thick - images) - most.clamp(max=0) * (thin - images)).squeeze(1)


def convolutions(networks: Networks) -> nn.Module:
    return in_bfloat16(networks, ConvEncoder(networks.shape, networks.channels, networks.width, LEAKY))


def in_bfloat16(networks: Networks, network: nn.Module) -> nn.Module:
    return Autocast(network) if networks.bfloat16 else network


def normalise(layer: nn.Module) -> None:
    """Divide the weights of a layer by their spectral norm (Miyato et al. 2018)."""
    if isinstance(layer, nn.Conv2d | nn.Linear):
        spectral_norm(layer)
