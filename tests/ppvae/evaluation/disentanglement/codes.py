"""Codes with known scores, over dSprites' grid of factors and over a small grid."""

from functools import cache

import torch

from ppvae.data import Factors
from ppvae.evaluation.disentanglement import Representation

DSPRITES = Factors(("shape", "scale", "orientation", "x", "y"), (3, 6, 40, 32, 32))
SMALL = Factors(("a", "b", "c"), (3, 4, 5))


@cache
def perfect(factors: Factors) -> torch.Tensor:
    """One dimension for each factor, standardised."""
    values = factors.values(torch.arange(len(factors))).double()
    return ((values - values.mean(0)) / values.std(0).clamp(min=1e-12)).float()


def noise(factors: Factors, dimensions: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(len(factors), dimensions, generator=torch.Generator().manual_seed(seed))


def rotation(dimensions: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(dimensions, dimensions, generator=generator, dtype=torch.float64))[0].float()


CODES = {
    "perfect": perfect,
    "perfect and noise": lambda factors: torch.cat([perfect(factors), noise(factors, 5)], 1),
    "duplicated": lambda factors: perfect(factors).repeat(1, 2),
    "rotated": lambda factors: perfect(factors) @ rotation(len(factors.sizes), 0),
    "noise": lambda factors: noise(factors, 10),
    "constant": lambda factors: torch.full((len(factors), 10), 0.3),
}


@cache
def representation(name: str, factors: Factors = DSPRITES) -> Representation:
    return Representation(factors, CODES[name](factors))


def transformed(r: Representation, scales: list[float] | None = None) -> Representation:
    """The dimensions in reverse order, every other one negated, and scaled."""
    codes = r.codes.flip(1) * torch.tensor([-1.0, 1.0]).repeat(r.codes.shape[1])[: r.codes.shape[1]]
    return Representation(r.factors, codes if scales is None else codes * torch.tensor(scales))
