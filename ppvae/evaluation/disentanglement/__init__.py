"""Disentanglement metrics: how the dimensions of a code correspond to the factors that its data were made from.

Each metric is a function of a :class:`Representation` and a seed; it neither reads nor changes the global random state.
Factors of one value are left out.
"""

from ppvae.evaluation.disentanglement.agreement import Agreement, metric_agreement
from ppvae.evaluation.disentanglement.classes import (
    class_code_information,
    class_information,
    class_probabilities,
    with_classes,
)
from ppvae.evaluation.disentanglement.importance import DCI, completeness_of, dci, disentanglement_of
from ppvae.evaluation.disentanglement.information import (
    ModularityExplicitness,
    explicitness_of,
    mig,
    mig_of,
    modularity_explicitness,
    modularity_of,
    mutual_information,
)
from ppvae.evaluation.disentanglement.interventions import irs
from ppvae.evaluation.disentanglement.metrics import METRICS
from ppvae.evaluation.disentanglement.predictability import sap, sap_of
from ppvae.evaluation.disentanglement.ranking import relative_strength, udr
from ppvae.evaluation.disentanglement.report import Disentanglement, disentanglement, score
from ppvae.evaluation.disentanglement.representation import Representation, represent
from ppvae.evaluation.disentanglement.total_correlation import (
    AggregatePosterior,
    aggregate_posterior,
    critic_correlation,
    minibatch_correlation,
)
from ppvae.evaluation.disentanglement.votes import factor_vae_score, higgins

__all__ = [
    "DCI",
    "METRICS",
    "AggregatePosterior",
    "Agreement",
    "Disentanglement",
    "ModularityExplicitness",
    "Representation",
    "aggregate_posterior",
    "class_code_information",
    "class_information",
    "class_probabilities",
    "completeness_of",
    "critic_correlation",
    "dci",
    "disentanglement",
    "disentanglement_of",
    "explicitness_of",
    "factor_vae_score",
    "higgins",
    "irs",
    "metric_agreement",
    "mig",
    "mig_of",
    "minibatch_correlation",
    "modularity_explicitness",
    "modularity_of",
    "mutual_information",
    "relative_strength",
    "represent",
    "sap",
    "sap_of",
    "score",
    "udr",
    "with_classes",
]
