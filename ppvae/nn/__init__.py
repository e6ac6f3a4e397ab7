"""Networks: tensors in, tensors out, with any leading dimensions and without Pyro."""

from ppvae.nn.augmentation import RandomWarp
from ppvae.nn.autocast import Autocast
from ppvae.nn.convolution import ConvClassifier, ConvDecoder, ConvEncoder
from ppvae.nn.corruption import CorruptInput, GaussianNoise, MaskingNoise
from ppvae.nn.dictionary import Dictionary
from ppvae.nn.functional import softplus
from ppvae.nn.missing import FillMissing
from ppvae.nn.mlp import MLP, AppendLabel, Classes, JointMLP, LabelledLinear, LabelledMLP
from ppvae.nn.sum import Sum

__all__ = [
    "MLP",
    "AppendLabel",
    "Autocast",
    "Classes",
    "ConvClassifier",
    "ConvDecoder",
    "ConvEncoder",
    "CorruptInput",
    "Dictionary",
    "FillMissing",
    "GaussianNoise",
    "JointMLP",
    "LabelledLinear",
    "LabelledMLP",
    "MaskingNoise",
    "RandomWarp",
    "Sum",
    "softplus",
]
