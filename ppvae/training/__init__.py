"""Training: the one loop, its checkpoints and its run folder."""

from ppvae.training.batches import Batches
from ppvae.training.checkpoint import load_checkpoint
from ppvae.training.device import environment, resolve_device
from ppvae.training.loop import FitResult, adam, fit

__all__ = ["Batches", "FitResult", "adam", "environment", "fit", "load_checkpoint", "resolve_device"]
