"""Evaluation: marginal likelihoods with their diagnostics, labels, latent codes, and (in a package) disentanglement."""

from ppvae.evaluation.annealed import AnnealedEstimate, BidirectionalEstimate
from ppvae.evaluation.annealing import ais, bdmc
from ppvae.evaluation.arviz import inference_data
from ppvae.evaluation.comparison import Comparison, compare, compare_pairs
from ppvae.evaluation.gaps import Gaps, gaps
from ppvae.evaluation.labels import accuracy, features, predict
from ppvae.evaluation.latents import LatentStatistics, latent_statistics
from ppvae.evaluation.loss import evaluate_loss
from ppvae.evaluation.marginal import LogMarginal, log_marginal
from ppvae.evaluation.pareto import pareto_khat
from ppvae.evaluation.simulated import Calibration, UpperBound, calibration, upper_bound
from ppvae.evaluation.traversals import traversals

__all__ = [
    "AnnealedEstimate",
    "BidirectionalEstimate",
    "Calibration",
    "Comparison",
    "Gaps",
    "LatentStatistics",
    "LogMarginal",
    "UpperBound",
    "accuracy",
    "ais",
    "bdmc",
    "calibration",
    "compare",
    "compare_pairs",
    "evaluate_loss",
    "features",
    "gaps",
    "inference_data",
    "latent_statistics",
    "log_marginal",
    "pareto_khat",
    "predict",
    "traversals",
    "upper_bound",
]
