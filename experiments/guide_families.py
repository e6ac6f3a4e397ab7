"""A decoder and guides of several families, with their training. Used by frozen_decoder.py and inference_gaps.py."""

from collections.abc import Callable
from typing import Any

from rich.console import Console
from schedules import linear, steps_of
from torch import nn

import ppvae
from ppvae.data import Dataset
from ppvae.guides import (
    FlowGuide,
    FullRankGaussian,
    MeanFieldGaussian,
    inverse_autoregressive,
    neural_spline,
    planar,
)
from ppvae.models import GaussianVAE
from ppvae.nn import MLP
from ppvae.training import RunDir

Config = Any  # a dataclass with latent_dim, hidden, context, batch_size, seed, device and out


def decoder(config: Config, shape: tuple[int, ...]) -> GaussianVAE:
    """A model of images of that shape."""
    return GaussianVAE(MLP(config.latent_dim, config.hidden, shape), config.latent_dim)


def mean_field(config: Config, shape: tuple[int, ...]) -> MeanFieldGaussian:
    return MeanFieldGaussian(encoder(config, shape, 2 * config.latent_dim))


def full_rank(config: Config, shape: tuple[int, ...]) -> FullRankGaussian:
    features = FullRankGaussian.num_features(config.latent_dim)
    return FullRankGaussian(encoder(config, shape, features), config.latent_dim)


def flow(maps: Callable) -> Callable[[Config, tuple[int, ...]], FlowGuide]:
    """A constructor of guides with these maps, which read ``config.context`` features of x."""

    def guide(config: Config, shape: tuple[int, ...]) -> FlowGuide:
        features = 2 * config.latent_dim + config.context
        return FlowGuide(encoder(config, shape, features), maps(config.latent_dim, config.context), config.latent_dim)

    return guide


def encoder(config: Config, shape: tuple[int, ...], features: int) -> nn.Module:
    return MLP(shape, config.hidden, features)


FAMILIES: dict[str, Callable[[Config, tuple[int, ...]], ppvae.AmortizedGuide]] = {
    "mean-field": mean_field,
    "full-rank": full_rank,
    "planar": flow(planar),
    "IAF": flow(inverse_autoregressive),
    "spline": flow(neural_spline),
}


def fit(
    config: Config, pair: tuple, objective, data: Dataset, name: str, epochs: int, train_model: bool = True
) -> None:
    """Train a pair in the folder ``config.out / name``. A finished training is not repeated; an interrupted one is
    resumed. The learning rate falls to 0, so that the noise of the last steps does not affect the comparison."""
    steps = steps_of(epochs, len(data), config.batch_size)
    Console().print(name)
    ppvae.fit(
        *pair,
        objective,
        data,
        epochs=epochs,
        batch_size=config.batch_size,
        optimizer=ppvae.adam(schedule=linear(steps)),
        train_model=train_model,
        run_dir=RunDir(config.out / name, resume=True),
        device=config.device,
        seed=config.seed,
    )
