"""Terms that are added to an objective, or replace one of its parts."""

from ppvae.objectives.terms.codes import CodeNorm, CodeSparsity, ContractivePenalty
from ppvae.objectives.terms.constraint import ConstrainedReconstruction
from ppvae.objectives.terms.decoder import DecoderGradient, DecoderWeights
from ppvae.objectives.terms.kl import Capacity, KLWeight
from ppvae.objectives.terms.labels import ClassifierLoss, Consistency, GeneratedLabels, LabelledWeight
from ppvae.objectives.terms.moments import DIPPenalty
from ppvae.objectives.terms.prior_matching import AdversarialDivergence, MaximumMeanDiscrepancy, SteinDiscrepancy
from ppvae.objectives.terms.sharper import AdversarialReconstruction, FeatureReconstruction
from ppvae.objectives.terms.total_correlation import TCDecomposition, TotalCorrelation, train_critic

__all__ = [
    "AdversarialDivergence",
    "AdversarialReconstruction",
    "Capacity",
    "ClassifierLoss",
    "CodeNorm",
    "CodeSparsity",
    "Consistency",
    "ConstrainedReconstruction",
    "ContractivePenalty",
    "DIPPenalty",
    "DecoderGradient",
    "DecoderWeights",
    "FeatureReconstruction",
    "GeneratedLabels",
    "KLWeight",
    "LabelledWeight",
    "MaximumMeanDiscrepancy",
    "SteinDiscrepancy",
    "TCDecomposition",
    "TotalCorrelation",
    "train_critic",
]
