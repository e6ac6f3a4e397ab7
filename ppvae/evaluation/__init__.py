"""Evaluation: marginal likelihoods with their diagnostics, labels, latent codes, and (in a package) disentanglement."""

from ppvae.evaluation.arviz import inference_data
from ppvae.evaluation.comparing import compare, compare_pairs
from ppvae.evaluation.comparison import Comparison
from ppvae.evaluation.generation import reconstruct, sample
from ppvae.evaluation.imputation import Imputation, impute
from ppvae.evaluation.labels import accuracy, features, predict
from ppvae.evaluation.latent_traversals import traversals
from ppvae.evaluation.latents import LatentStatistics, latent_statistics
from ppvae.evaluation.likelihood import proposals
from ppvae.evaluation.likelihood.annealed import AnnealedEstimate, AnnealingCheck, BidirectionalEstimate
from ppvae.evaluation.likelihood.annealing import Annealing, ais, bdmc
from ppvae.evaluation.likelihood.importance import log_marginal
from ppvae.evaluation.likelihood.inference_gaps import Ascent, Gaps, gaps
from ppvae.evaluation.likelihood.marginal import LogMarginal, Weights
from ppvae.evaluation.likelihood.pareto import khat_limit, pareto_khat
from ppvae.evaluation.likelihood.simulated import Calibration, UpperBound, calibration, upper_bound
from ppvae.evaluation.loss import evaluate_loss, evaluate_parts

__all__ = [
    "AnnealedEstimate",
    "Annealing",
    "AnnealingCheck",
    "Ascent",
    "BidirectionalEstimate",
    "Calibration",
    "Comparison",
    "Gaps",
    "Imputation",
    "LatentStatistics",
    "LogMarginal",
    "UpperBound",
    "Weights",
    "accuracy",
    "ais",
    "bdmc",
    "calibration",
    "compare",
    "compare_pairs",
    "evaluate_loss",
    "evaluate_parts",
    "features",
    "gaps",
    "impute",
    "inference_data",
    "khat_limit",
    "latent_statistics",
    "log_marginal",
    "pareto_khat",
    "predict",
    "proposals",
    "reconstruct",
    "sample",
    "traversals",
    "upper_bound",
]
