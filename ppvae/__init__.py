"""A bench for amortized inference in Pyro: pick a model, a guide and an objective, each on its own."""

from ppvae.contract import Guide, Model, check_pair
from ppvae.objectives import ELBO, IWAE, Objective, SemiSupervised
from ppvae.particles import Particles, draw

__all__ = ["ELBO", "IWAE", "Guide", "Model", "Objective", "Particles", "SemiSupervised", "check_pair", "draw"]
