"""Distributions that torch and Pyro lack, likelihoods, and closed-form divergences."""

from ppvae.distributions.aggregate import log_joint_and_marginals, stratified, weighted
from ppvae.distributions.elements import BernoulliElements, GreyGrid, GreyLevels, LogisticElements, SummedElements
from ppvae.distributions.gaussians import diagonal_normal, standard_normal
from ppvae.distributions.implicit import Implicit, has_density
from ppvae.distributions.kl import closed_form_kl
from ppvae.distributions.likelihoods import (
    Bernoulli,
    Categorical,
    DiscretizedLogistic,
    ElementwiseLikelihood,
    Gaussian,
    Likelihood,
)
from ppvae.distributions.missing import ObservedElements
from ppvae.distributions.mixtures import DiagonalMixture
from ppvae.distributions.reversal import Reversal
from ppvae.distributions.sylvester import Sylvester

__all__ = [
    "Bernoulli",
    "BernoulliElements",
    "Categorical",
    "DiagonalMixture",
    "DiscretizedLogistic",
    "ElementwiseLikelihood",
    "Gaussian",
    "GreyGrid",
    "GreyLevels",
    "Implicit",
    "Likelihood",
    "LogisticElements",
    "ObservedElements",
    "Reversal",
    "SummedElements",
    "Sylvester",
    "closed_form_kl",
    "diagonal_normal",
    "has_density",
    "log_joint_and_marginals",
    "standard_normal",
    "stratified",
    "weighted",
]
