"""Objectives: bounds of log p(x), and losses that are not bounds."""

from ppvae.objectives.bounds.evidence import ELBO, Reconstruction, StickingTheLanding
from ppvae.objectives.bounds.importance import IWAE, DReG, Renyi
from ppvae.objectives.bounds.wake_sleep import ForwardKL, ReweightedWakeSleep

__all__ = ["ELBO", "IWAE", "DReG", "ForwardKL", "Reconstruction", "Renyi", "ReweightedWakeSleep", "StickingTheLanding"]
