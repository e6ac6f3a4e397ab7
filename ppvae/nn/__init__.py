"""Networks: tensors in, tensors out, any leading dimensions; no Pyro in here."""

from ppvae.nn.augmentation import RandomWarp
from ppvae.nn.autocast import Autocast
from ppvae.nn.convolution import ConvClassifier, ConvDecoder, ConvEncoder
from ppvae.nn.mlp import MLP, LabelledLinear, LabelledMLP

__all__ = [
    "MLP",
    "Autocast",
    "ConvClassifier",
    "ConvDecoder",
    "ConvEncoder",
    "LabelledLinear",
    "LabelledMLP",
    "RandomWarp",
]
