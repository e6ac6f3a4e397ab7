"""Pairs of several families on MNIST, each with 50 latents, with their training. Used by believable_log_p.py."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from schedules import half_cosine, steps_of
from torch import nn

import ppvae
from ppvae.data import Dataset
from ppvae.guides import BottomUpGuide, FlowGuide, LabelStyleGuide, MeanFieldGaussian, inverse_autoregressive
from ppvae.models import GaussianVAE, HierarchicalVAE, SemiSupervisedVAE
from ppvae.nn import MLP, ConvClassifier, ConvDecoder, ConvEncoder, LabelledMLP
from ppvae.training import RunDir

Shape = tuple[int, ...]
Pair = tuple[nn.Module, nn.Module]
LATENT_DIM, HIDDEN, CONTEXT, CLASSES = 50, (200, 200), 50, 10
LAYERS = (30, 20)  # latents of the two layers


@dataclass(frozen=True)
class Recipe:
    """How a pair is made and trained."""

    make: Callable[[Shape], Pair]
    objective: ppvae.Objective
    epochs: int


def vae(shape: Shape, latent_dim: int = LATENT_DIM) -> Pair:
    decoder, encoder = MLP(latent_dim, HIDDEN, shape), MLP(shape, HIDDEN, 2 * latent_dim)
    return GaussianVAE(decoder, latent_dim), MeanFieldGaussian(encoder)


def with_flow(shape: Shape) -> Pair:
    encoder = MLP(shape, HIDDEN, 2 * LATENT_DIM + CONTEXT)
    guide = FlowGuide(encoder, inverse_autoregressive(LATENT_DIM, CONTEXT), LATENT_DIM)
    return GaussianVAE(MLP(LATENT_DIM, HIDDEN, shape), LATENT_DIM), guide


def two_layers(shape: Shape) -> Pair:
    below, above = LAYERS
    model = HierarchicalVAE(MLP(below, HIDDEN, shape), [MLP(above, (100, 100), 2 * below)], above)
    return model, BottomUpGuide([MLP(shape, HIDDEN, 2 * below), MLP(below, (100, 100), 2 * above)])


def convolutional(shape: Shape) -> Pair:
    decoder = ConvDecoder(LATENT_DIM, (32, 16), shape)
    return GaussianVAE(decoder, LATENT_DIM), MeanFieldGaussian(ConvEncoder(shape, (16, 32), 2 * LATENT_DIM))


def labelled(shape: Shape) -> Pair:
    guide = LabelStyleGuide(ConvClassifier(shape, CLASSES), LabelledMLP(shape, CLASSES, HIDDEN, 2 * LATENT_DIM))
    return SemiSupervisedVAE(LabelledMLP(LATENT_DIM, CLASSES, HIDDEN, shape), LATENT_DIM, CLASSES), guide


RECIPES = {
    "VAE": Recipe(vae, ppvae.ELBO(), 20),
    "IWAE": Recipe(vae, ppvae.IWAE(5), 10),
    "flow guide": Recipe(with_flow, ppvae.ELBO(), 10),
    "two layers": Recipe(two_layers, ppvae.ELBO(), 10),
    "convolutional": Recipe(convolutional, ppvae.ELBO(), 6),
    "M2": Recipe(labelled, ppvae.ELBO() + ppvae.ClassifierLoss(1.0), 10),
    **{f"VAE, {dim} latents": Recipe(partial(vae, latent_dim=dim), ppvae.ELBO(), 10) for dim in (10, 64, 128, 256)},
}


def trained(name: str, data: Dataset, folder: Path, seed: int = 0, batch_size: int = 128) -> Pair:
    """The pair of that name, trained in its own folder, or read from there if its training is finished."""
    recipe, data = RECIPES[name], data if name == "M2" else data.unlabelled()
    torch.manual_seed(seed)
    model, guide = recipe.make(data.event_shape)
    ppvae.fit(
        model,
        guide,
        recipe.objective,
        data,
        epochs=recipe.epochs,
        batch_size=batch_size,
        optimizer=ppvae.adam(2e-3, schedule=half_cosine(steps_of(recipe.epochs, len(data), batch_size))),
        run_dir=RunDir(folder / name.replace(", ", "-").replace(" ", "-"), resume=True),
        device="cpu",
        seed=seed,
    )
    return model, guide
