"""Objectives: functions of one replay of a pair, each a ``pyro.infer.ELBO``; bounds, regularisers, recipes."""

from ppvae.objectives.base import Objective, Regularised, Regulariser
from ppvae.objectives.bounds.evidence import ELBO, StickingTheLanding
from ppvae.objectives.bounds.importance import IWAE, DReG, ForwardKL, Renyi, ReweightedWakeSleep
from ppvae.objectives.critics import Adversary, Critic, critic_adam, critic_network
from ppvae.objectives.kernels import RBF, InverseMultiquadratic, Kernel
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
from ppvae.objectives.terms.kl import Capacity, ConstrainedReconstruction, KLWeight, Reconstruction
from ppvae.objectives.terms.labels import ClassifierLoss, Consistency
from ppvae.objectives.terms.moments import DIPPenalty
from ppvae.objectives.terms.prior_matching import AdversarialDivergence, MaximumMeanDiscrepancy, SteinDiscrepancy
from ppvae.objectives.terms.total_correlation import TCDecomposition, TotalCorrelation, train_critic

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
    "Critic",
    "DIPPenalty",
    "DReG",
    "ForwardKL",
    "InverseMultiquadratic",
    "KLWeight",
    "Kernel",
    "MaximumMeanDiscrepancy",
    "Objective",
    "Ramp",
    "Reconstruction",
    "Regularised",
    "Regulariser",
    "Renyi",
    "ReweightedWakeSleep",
    "SteinDiscrepancy",
    "StickingTheLanding",
    "TCDecomposition",
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
