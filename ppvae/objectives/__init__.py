"""Objectives: functions of one replay of a pair, each a ``pyro.infer.ELBO``."""

from ppvae.objectives.base import Objective
from ppvae.objectives.consistency import Consistency
from ppvae.objectives.evidence import ELBO, StickingTheLanding
from ppvae.objectives.importance import IWAE, DReG, ForwardKL, Renyi, ReweightedWakeSleep
from ppvae.objectives.semi_supervised import SemiSupervised

__all__ = [
    "ELBO",
    "IWAE",
    "Consistency",
    "DReG",
    "ForwardKL",
    "Objective",
    "Renyi",
    "ReweightedWakeSleep",
    "SemiSupervised",
    "StickingTheLanding",
]
