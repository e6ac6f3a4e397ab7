"""Amortized guides q(z | x), one file for each family. Installed as ``ppvae.guides``."""

from ppvae.guides.auxiliary import AuxiliaryGuide
from ppvae.guides.categorical import CategoricalGuide
from ppvae.guides.flow import (
    FlowGuide,
    affine_coupling,
    householder,
    inverse_autoregressive,
    neural_spline,
    planar,
    radial,
    sylvester,
)
from ppvae.guides.full_rank import FullRankGaussian
from ppvae.guides.hierarchical import BottomUpGuide, TopDownGuide
from ppvae.guides.labelled import LabelGuide, LabelStyleGuide
from ppvae.guides.mean_field import MeanFieldGaussian
from ppvae.guides.mixture import MixtureGuide
from ppvae.guides.point import PointGuide
from ppvae.guides.recognition import RecognitionGuide
from ppvae.guides.refined import Refined

__all__ = [
    "AuxiliaryGuide",
    "BottomUpGuide",
    "CategoricalGuide",
    "FlowGuide",
    "FullRankGaussian",
    "LabelGuide",
    "LabelStyleGuide",
    "MeanFieldGaussian",
    "MixtureGuide",
    "PointGuide",
    "RecognitionGuide",
    "Refined",
    "TopDownGuide",
    "affine_coupling",
    "householder",
    "inverse_autoregressive",
    "neural_spline",
    "planar",
    "radial",
    "sylvester",
]
