"""A bench for amortized inference in Pyro: pick a model, a guide and an objective, each on its own."""

from ppvae.contract import AmortizedGuide, Guide, Model, check_pair
from ppvae.data import Dataset
from ppvae.errors import (
    CheckpointError,
    ContractError,
    DataError,
    Interrupted,
    NonFiniteLossError,
    PpvaeError,
)
from ppvae.evaluation import (
    AnnealedEstimate,
    BidirectionalEstimate,
    Gaps,
    LogMarginal,
    accuracy,
    ais,
    bdmc,
    evaluate_loss,
    features,
    gaps,
    log_marginal,
    predict,
)
from ppvae.objectives import (
    ELBO,
    IWAE,
    Consistency,
    DReG,
    ForwardKL,
    Objective,
    Renyi,
    ReweightedWakeSleep,
    SemiSupervised,
    StickingTheLanding,
)
from ppvae.particles import Particles
from ppvae.replay import draw
from ppvae.training import FitResult, adam, fit, load_checkpoint

__all__ = [
    "ELBO",
    "IWAE",
    "AmortizedGuide",
    "AnnealedEstimate",
    "BidirectionalEstimate",
    "CheckpointError",
    "Consistency",
    "ContractError",
    "DReG",
    "DataError",
    "Dataset",
    "FitResult",
    "ForwardKL",
    "Gaps",
    "Guide",
    "Interrupted",
    "LogMarginal",
    "Model",
    "NonFiniteLossError",
    "Objective",
    "Particles",
    "PpvaeError",
    "Renyi",
    "ReweightedWakeSleep",
    "SemiSupervised",
    "StickingTheLanding",
    "accuracy",
    "adam",
    "ais",
    "bdmc",
    "check_pair",
    "draw",
    "evaluate_loss",
    "features",
    "fit",
    "gaps",
    "load_checkpoint",
    "log_marginal",
    "predict",
]
