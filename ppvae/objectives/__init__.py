"""Objectives: functions of one replay of a pair, each a ``pyro.infer.ELBO``; bounds, regularisers, recipes."""

from ppvae.objectives.adversary import Adversary, Critic, critic_adam, critic_network
from ppvae.objectives.aggregate import AdversarialDivergence, MaximumMeanDiscrepancy, SteinDiscrepancy
from ppvae.objectives.base import Objective, Regularised, Regulariser
from ppvae.objectives.consistency import Consistency
from ppvae.objectives.evidence import ELBO, StickingTheLanding
from ppvae.objectives.importance import IWAE, DReG, ForwardKL, Renyi, ReweightedWakeSleep
from ppvae.objectives.kernels import RBF, InverseMultiquadratic, Kernel
from ppvae.objectives.moments import CovariancePenalty
from ppvae.objectives.rate import Capacity, ConstrainedReconstruction, Distortion, KLWeight
from ppvae.objectives.recipes import (
    adversarial_autoencoder,
    annealed_vae,
    beta_tcvae,
    beta_vae,
    dip_vae_i,
    dip_vae_ii,
    factor_vae,
    geco,
    info_vae,
    wae,
)
from ppvae.objectives.schedules import Ramp, warm_up
from ppvae.objectives.semi_supervised import ClassifierLoss
from ppvae.objectives.total_correlation import Decomposition, TotalCorrelation, train_critic

__all__ = [
    "ELBO",
    "IWAE",
    "RBF",
    "AdversarialDivergence",
    "Adversary",
    "Capacity",
    "ClassifierLoss",
    "Consistency",
    "ConstrainedReconstruction",
    "CovariancePenalty",
    "Critic",
    "DReG",
    "Decomposition",
    "Distortion",
    "ForwardKL",
    "InverseMultiquadratic",
    "KLWeight",
    "Kernel",
    "MaximumMeanDiscrepancy",
    "Objective",
    "Ramp",
    "Regularised",
    "Regulariser",
    "Renyi",
    "ReweightedWakeSleep",
    "SteinDiscrepancy",
    "StickingTheLanding",
    "TotalCorrelation",
    "adversarial_autoencoder",
    "annealed_vae",
    "beta_tcvae",
    "beta_vae",
    "critic_adam",
    "critic_network",
    "dip_vae_i",
    "dip_vae_ii",
    "factor_vae",
    "geco",
    "info_vae",
    "train_critic",
    "wae",
    "warm_up",
]
