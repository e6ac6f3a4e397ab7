"""A bench for amortized inference in Pyro: pick a model, a guide and an objective, each on its own."""

from ppvae.contract import Guide, Model, check_pair
from ppvae.evaluation import LogMarginal, accuracy, features, log_marginal, predict
from ppvae.objectives import ELBO, IWAE, Objective, SemiSupervised
from ppvae.particles import Particles, draw
from ppvae.training import FitResult, adam, fit, load_checkpoint

__all__ = [
    "ELBO",
    "IWAE",
    "FitResult",
    "Guide",
    "LogMarginal",
    "Model",
    "Objective",
    "Particles",
    "SemiSupervised",
    "accuracy",
    "adam",
    "check_pair",
    "draw",
    "features",
    "fit",
    "load_checkpoint",
    "log_marginal",
    "predict",
]
