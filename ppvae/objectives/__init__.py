"""Objectives: functions of one replay of a pair, each a ``pyro.infer.ELBO``."""

from ppvae.objectives.base import Objective
from ppvae.objectives.consistency import Consistency
from ppvae.objectives.evidence import ELBO
from ppvae.objectives.importance import IWAE
from ppvae.objectives.semi_supervised import SemiSupervised

__all__ = ["ELBO", "IWAE", "Consistency", "Objective", "SemiSupervised"]
