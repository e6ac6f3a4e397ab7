"""Autoencoders of images, and the same networks as VAEs, with their training. Used by autoencoders.py.

The likelihood of an autoencoder is a Gaussian of variance 1/2, for which - log p(x | z) is the squared error, summed
over the pixels, and a constant: penalties are relative to it. A VAE learns the scale of its noise (Rybkin et al. 2021,
"Simple and Effective VAE Training with Calibrated Decoders"): with variance 1/2 it would use few elements of its code.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from schedules import half_cosine
from torch import Tensor, nn

import ppvae
from ppvae.data import Dataset
from ppvae.distributions.likelihoods import Gaussian
from ppvae.guides import MeanFieldGaussian, PointGuide
from ppvae.models import GaussianVAE, LinearGaussian
from ppvae.nn import MLP, CorruptInput, Dictionary, MaskingNoise
from ppvae.training import RunDir

Shape = tuple[int, ...]
Pair = tuple[GaussianVAE, ppvae.AmortizedGuide]
HIDDEN_SHARE = 0.5  # of the pixels, set to 0 in denoising


@dataclass(frozen=True)
class Networks:
    """The encoder's layers, and in reverse order the decoder's."""

    shape: Shape
    hidden: tuple[int, ...]
    width: int


@dataclass(frozen=True)
class Recipe:
    """How a pair is made and trained."""

    make: Callable[[Networks], Pair]
    objective: ppvae.Objective


def autoencoder(networks: Networks) -> Pair:
    encoder = MLP(networks.shape, networks.hidden, networks.width)
    return _model(networks), PointGuide(encoder)


def denoising(networks: Networks) -> Pair:
    encoder = MLP(networks.shape, networks.hidden, networks.width)
    return _model(networks), PointGuide(CorruptInput(encoder, MaskingNoise(HIDDEN_SHARE)))


def vae(networks: Networks) -> Pair:
    encoder = MLP(networks.shape, networks.hidden, 2 * networks.width)
    return _model(networks, Gaussian(0.2, learned=True)), MeanFieldGaussian(encoder)


def _model(networks: Networks, likelihood: Gaussian | None = None) -> GaussianVAE:
    decoder = MLP(networks.width, networks.hidden[::-1], networks.shape)
    return GaussianVAE(decoder, networks.width, likelihood or Gaussian(0.5**0.5))


def one_layer(activation: type[nn.Module], noise: nn.Module | None = None) -> Callable[[Networks], Pair]:
    """A layer of units and a linear decoder with atoms of unit length, so that no penalty is escaped by small codes."""

    def make(networks: Networks) -> Pair:
        encoder = nn.Sequential(MLP(networks.shape, [], networks.width), activation())
        model = GaussianVAE(Dictionary(networks.width, networks.shape), networks.width, Gaussian(0.5**0.5))
        return model, PointGuide(encoder if noise is None else CorruptInput(encoder, noise))

    return make


RECIPES = {
    "autoencoder": Recipe(autoencoder, ppvae.Reconstruction()),
    "beta 0": Recipe(vae, ppvae.beta_vae(0.0)),
    "beta 1": Recipe(vae, ppvae.ELBO()),
    "beta 4": Recipe(vae, ppvae.beta_vae(4.0)),
    "RAE": Recipe(autoencoder, ppvae.rae(code=0.05, decoder=1e-4)),
    "denoising": Recipe(denoising, ppvae.Reconstruction()),
}
FILTERS = {  # of one layer, by what shapes them
    "no penalty": Recipe(one_layer(nn.Sigmoid), ppvae.Reconstruction()),
    "denoising": Recipe(one_layer(nn.Sigmoid, MaskingNoise(HIDDEN_SHARE)), ppvae.Reconstruction()),
    "sparse, KL": Recipe(one_layer(nn.Sigmoid), ppvae.Reconstruction() + ppvae.CodeSparsity(0.3, target=0.05)),
    "sparse, L1": Recipe(one_layer(nn.ReLU), ppvae.Reconstruction() + ppvae.CodeNorm(0.5, power=1)),
    "contractive": Recipe(one_layer(nn.Sigmoid), ppvae.Reconstruction() + ppvae.ContractivePenalty(1.0)),
}


def trained(config, recipe: Recipe, networks: Networks, data: Dataset, name: str, seed: int = 0) -> Pair:
    """A pair in evaluation mode, trained in a folder of that name, or read from there if its training is finished.

    ``config`` is that of autoencoders.py.
    """
    torch.manual_seed(seed)
    model, guide = recipe.make(networks)
    initialise(model, guide, data.grey(slice(None)).flatten(1).mean(0))
    steps = config.epochs * (len(data) // config.batch_size)
    ppvae.fit(
        model,
        guide,
        recipe.objective,
        data,
        epochs=config.epochs,
        batch_size=config.batch_size,
        optimizer=ppvae.adam(1e-3, schedule=half_cosine(steps)),
        run_dir=RunDir(config.out / config.data / name, resume=True),
        device=config.device,
        seed=seed,
    )
    return model.eval(), guide.eval()


def name_of(kind: str, depth: int, width: int, seed: int = 0) -> str:
    """The folder of a run of the table."""
    return f"{kind.replace(' ', '-')}-depth{depth}-width{width}-seed{seed}"


@torch.no_grad()
def initialise(model: GaussianVAE, guide: ppvae.AmortizedGuide, mean: Tensor) -> None:
    """Set initial weights: He's for rectified layers, and biases such that the pair starts from the mean image.

    torch's own are smaller, and a deep autoencoder starts more slowly from them: on MNIST at 128 elements, depth 3,
    the mean squared error of the second epoch is 9.9 in place of 12.7.
    """
    for network in (guide, model.decoder):
        for layer in _linear(network)[:-1]:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    first, decoder = _linear(guide)[0], model.decoder
    first.bias.sub_(first.weight @ mean)
    last = decoder if isinstance(decoder, Dictionary) else _linear(decoder)[-1]
    last.bias.copy_(mean)


def _linear(network: nn.Module) -> list[nn.Linear]:
    return [part for part in network.modules() if isinstance(part, nn.Linear)]


def squared_error(model: GaussianVAE, guide: ppvae.AmortizedGuide, x: Tensor, target: Tensor | None = None) -> float:
    """Mean over images of |target - reconstruction of x|^2, summed over pixels; target is x if None."""
    error = ppvae.reconstruct(model, guide, x) - (x if target is None else target)
    return error.square().flatten(1).sum(1).double().mean().item()


def pca_errors(train: Tensor, test: Tensor, widths: Sequence[int]) -> dict[int, float]:
    """:func:`squared_error` of the principal components of the training images, by their number."""
    model = LinearGaussian.fit(train.flatten(1), max(widths))
    directions = nn.functional.normalize(model.weight.detach(), dim=0)  # in the order of their variance
    centred = (test.flatten(1) - model.bias.detach()).double()
    found = {}
    for width in widths:
        basis = directions[:, :width].double()
        found[width] = (centred - centred @ basis @ basis.T).square().sum(1).mean().item()
    return found
