"""Evaluation: marginal likelihoods with their diagnostics, labels, latent codes."""

from ppvae.evaluation.annealing import AnnealedEstimate, BidirectionalEstimate, ais, bdmc
from ppvae.evaluation.gaps import Gaps, gaps
from ppvae.evaluation.labels import accuracy, features, predict
from ppvae.evaluation.loss import evaluate_loss
from ppvae.evaluation.marginal import LogMarginal, log_marginal
from ppvae.evaluation.pareto import pareto_khat

__all__ = [
    "AnnealedEstimate",
    "BidirectionalEstimate",
    "Gaps",
    "LogMarginal",
    "accuracy",
    "ais",
    "bdmc",
    "evaluate_loss",
    "features",
    "gaps",
    "log_marginal",
    "pareto_khat",
    "predict",
]
