"""Training: players, the loop, its checkpoints and its run folder."""

from ppvae.training.adversarial import info_gan, info_wgan_gp
from ppvae.training.arguments import RunDir, Validation
from ppvae.training.backends import Eager
from ppvae.training.batches import Batches, Batching
from ppvae.training.checkpoint import load_checkpoint, load_players
from ppvae.training.device import environment, resolve_device
from ppvae.training.loop import FitResult, fit, train
from ppvae.training.optimizers import Scheduled, adam
from ppvae.training.players import pair_player, players_of

__all__ = [
    "Batches",
    "Batching",
    "Eager",
    "FitResult",
    "RunDir",
    "Scheduled",
    "Validation",
    "adam",
    "environment",
    "fit",
    "info_gan",
    "info_wgan_gp",
    "load_checkpoint",
    "load_players",
    "pair_player",
    "players_of",
    "resolve_device",
    "train",
]
