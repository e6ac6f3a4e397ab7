"""Amortized guides q(z | x), one file a family. Installed as ``ppvae.guides``."""

from ppvae.guides.categorical import CategoricalGuide
from ppvae.guides.labelled import LabelGuide, LabelStyleGuide
from ppvae.guides.mean_field import MeanFieldGaussian

__all__ = ["CategoricalGuide", "LabelGuide", "LabelStyleGuide", "MeanFieldGaussian"]
