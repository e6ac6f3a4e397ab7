"""Autoencoders of images, and the same networks as VAEs, with their training. Used by autoencoders.py.

The likelihood of an autoencoder is a Gaussian of variance 1/2, for which - log p(x | z) is the squared error, summed
over the pixels, and a constant: penalties are relative to it. A VAE learns the scale of its noise (Rybkin et al. 2021,
"Simple and Effective VAE Training with Calibrated Decoders"): with variance 1/2 it would use few elements of its code.

With the start "PCA" each network is a linear map plus a deep network, set so that a pair starts as probabilistic PCA
(Tipping and Bishop 1999), the best linear pair: training adds what is not linear. Deep networks alone have a larger
error than PCA at wide codes for many epochs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from schedules import half_cosine, steps_of
from torch import Tensor, nn

import ppvae
from ppvae.data import Dataset
from ppvae.distributions.likelihoods import Gaussian
from ppvae.guides import MeanFieldGaussian, PointGuide
from ppvae.models import GaussianVAE, LinearGaussian
from ppvae.nn import MLP, Autocast, CorruptInput, Dictionary, MaskingNoise, Sum
from ppvae.training import RunDir

Shape = tuple[int, ...]
Line = tuple[Tensor, Tensor]  # weight and bias
Pair = tuple[GaussianVAE, ppvae.AmortizedGuide]
HIDDEN_SHARE = 0.5  # of the pixels, set to 0 in denoising


@dataclass(frozen=True)
class Networks:
    """Sizes and initial weights of the networks of a pair."""

    shape: Shape
    hidden: tuple[int, ...]
    """The encoder's layers, and in reverse order the decoder's."""
    width: int
    start: LinearGaussian | None = None
    """Each network has a linear shortcut, and the pair starts as this one with its posterior as guide; a layer of
    filters starts from its mean image. None for deep networks alone, from torch's initial weights."""
    bfloat16: bool = False
    """The products of the deep networks in bfloat16."""


@dataclass(frozen=True)
class Recipe:
    """How a pair is made and trained."""

    make: Callable[[Networks], Pair]
    objective: ppvae.Objective


def autoencoder(networks: Networks) -> Pair:
    return _model(networks), PointGuide(_encoder(networks, networks.width))


def denoising(networks: Networks) -> Pair:
    encoder = _encoder(networks, networks.width)
    return _model(networks), PointGuide(CorruptInput(encoder, MaskingNoise(HIDDEN_SHARE)))


def vae(networks: Networks) -> Pair:
    scale = 0.2 if networks.start is None else networks.start.log_scale.exp().item()
    return _model(networks, Gaussian(scale, learned=True)), MeanFieldGaussian(_encoder(networks, 2 * networks.width))


def _model(networks: Networks, likelihood: Gaussian | None = None) -> GaussianVAE:
    start = networks.start
    line = None if start is None else (start.weight, start.bias)
    decoder = _network(networks, networks.width, networks.hidden[::-1], networks.shape, line)
    return GaussianVAE(decoder, networks.width, likelihood or Gaussian(0.5**0.5))


def _encoder(networks: Networks, outputs: int) -> nn.Module:
    """The means of the code; with twice as many outputs, also the logs of its standard deviations."""
    start, line = networks.start, None
    if start is not None:
        # p(z | x) = N(C W' (x - b) / s^2, C): the same covariance C for all x.
        posterior = start.posterior(start.bias.unsqueeze(0))
        weight = posterior.covariance_matrix[0] @ start.weight.T / (2 * start.log_scale).exp()
        rows = torch.cat([weight, torch.zeros_like(weight)])
        biases = torch.cat([-weight @ start.bias, posterior.stddev[0].log()])
        line = rows[:outputs], biases[:outputs]
    return _network(networks, networks.shape, networks.hidden, outputs, line)


@torch.no_grad()
def _network(
    networks: Networks, in_shape: int | Shape, hidden: Sequence[int], out_shape: int | Shape, line: Line | None
) -> nn.Module:
    """A deep network from torch's initial weights; with a line, a sum that starts as that line, and in its rectified
    layers from He's weights."""
    deep = MLP(in_shape, hidden, out_shape)
    network = Autocast(deep) if networks.bfloat16 else deep
    if line is None:
        return network
    *rectified, last = _linear(deep)
    for layer in rectified:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)
    for parameter in last.parameters():
        nn.init.zeros_(parameter)
    shortcut = MLP(in_shape, (), out_shape)
    for parameter, value in zip(_linear(shortcut)[0].parameters(), line, strict=True):
        parameter.copy_(value)
    return Sum(network, shortcut)


def _linear(network: nn.Module) -> list[nn.Linear]:
    return [part for part in network.modules() if isinstance(part, nn.Linear)]


def one_layer(activation: type[nn.Module], noise: nn.Module | None = None) -> Callable[[Networks], Pair]:
    """A layer of units and a linear decoder with atoms of unit length, so that no penalty is escaped by small codes."""

    def make(networks: Networks) -> Pair:
        layer, decoder = MLP(networks.shape, [], networks.width), Dictionary(networks.width, networks.shape)
        if networks.start is not None:
            with torch.no_grad():
                layer.layers[0].bias.copy_(-layer.layers[0].weight @ networks.start.bias)
                decoder.bias.copy_(networks.start.bias)
        encoder = nn.Sequential(layer, activation())
        model = GaussianVAE(decoder, networks.width, Gaussian(0.5**0.5))
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
    steps = steps_of(config.epochs, len(data), config.batch_size)
    ppvae.fit(
        model,
        guide,
        recipe.objective,
        data,
        epochs=config.epochs,
        batch_size=config.batch_size,
        optimizer=ppvae.adam(config.learning_rate, schedule=half_cosine(steps)),
        run_dir=RunDir(config.out / config.data / name, resume=True),
        device=config.device,
        seed=seed,
    )
    return model.eval(), guide.eval()


def networks_of(config, data: Dataset, depth: int, width: int) -> Networks:
    """The networks of a pair of the table. ``config`` as in trained."""
    start = principal(data, width) if config.start == "PCA" else None
    return Networks(data.event_shape, config.hidden[:depth], width, start, config.bfloat16)


def name_of(kind: str, depth: int, width: int, seed: int = 0) -> str:
    """The folder of a run of the table."""
    return f"{kind.replace(' ', '-')}-depth{depth}-width{width}-seed{seed}"


@cache
def principal(data: Dataset, width: int) -> LinearGaussian:
    """Probabilistic PCA of all rows, at its maximum."""
    return LinearGaussian.fit(data.grey(slice(None)).flatten(1), width)


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
