"""Generative models p(x, z), one file for each family. Installed as ``ppvae.models``."""

from ppvae.models.auxiliary import AuxiliaryVAE
from ppvae.models.conditional import ConditionalVAE
from ppvae.models.gaussian_mixture import GaussianMixture
from ppvae.models.gaussian_vae import GaussianVAE
from ppvae.models.hierarchical import HierarchicalVAE
from ppvae.models.implicit import ImplicitModel
from ppvae.models.linear_gaussian import LinearGaussian
from ppvae.models.priors import AutoregressiveFlow, FullMixture, MixtureOfGaussians, StandardNormal, VampPrior
from ppvae.models.semi_supervised import SemiSupervisedVAE

__all__ = [
    "AutoregressiveFlow",
    "AuxiliaryVAE",
    "ConditionalVAE",
    "FullMixture",
    "GaussianMixture",
    "GaussianVAE",
    "HierarchicalVAE",
    "ImplicitModel",
    "LinearGaussian",
    "MixtureOfGaussians",
    "SemiSupervisedVAE",
    "StandardNormal",
    "VampPrior",
]
