"""Semi-supervised pairs with 50 styles and a small convolutional classifier. Used by ssvae_mnist.py.

m2      p(y) p(z) p(x | y, z)                    q(y | x) q(z | x, y), or q(y | x) q(z | x)
adgm    p(y) p(z) p(a | z, y) p(x | z, y)        q(a | x) q(y | a, x) q(z | a, x, y)
sdgm    p(y) p(z) p(a | z, y) p(x | a, z, y)     the same
"""

import torch
from torch import Tensor, nn

from ppvae.guides import AuxiliaryGuide, LabelGuide, LabelStyleGuide
from ppvae.models import AuxiliaryVAE, SemiSupervisedVAE
from ppvae.nn import MLP, Classes, ConvClassifier, JointMLP, LabelledMLP, RandomWarp

LATENT_DIM = 50
AUXILIARY_DIM = 50
HIDDEN = (500, 500)
CLASSES = 10
DRAWS = 100  # of the auxiliary variable, for q(y | x)
FEATURES = 64  # of the convolutions, which q(y | a, x) reads with a

Shape = tuple[int, ...]
Pair = tuple[nn.Module, nn.Module]


class AuxiliaryClassifier(nn.Module):
    """Logits of q(y | a, x): a network of a and of features of x."""

    def __init__(self, features: nn.Module):
        super().__init__()
        self.features, self.joint = features, JointMLP([AUXILIARY_DIM, FEATURES], [FEATURES], CLASSES)

    def forward(self, a: Tensor, x: Tensor) -> Tensor:
        return self.joint(a, self.features(x))


def build_pair(config, shape: Shape, device: torch.device) -> Pair:
    """The model and the guide of a run with the settings ``config`` of ssvae_mnist.py."""
    torch.manual_seed(config.seed)
    make = with_labels_alone if config.pair == "m2" else with_auxiliary
    model, guide = make(config, shape)
    return model.to(device), guide.to(device)


def with_labels_alone(config, shape: Shape) -> Pair:
    classifier = of_images(config, ConvClassifier(shape, CLASSES))
    if config.guide == "label":
        guide = LabelGuide(classifier, MLP(shape, HIDDEN, 2 * LATENT_DIM))
    else:
        guide = LabelStyleGuide(classifier, LabelledMLP(shape, CLASSES, HIDDEN, 2 * LATENT_DIM))
    return SemiSupervisedVAE(LabelledMLP(LATENT_DIM, CLASSES, HIDDEN, shape), LATENT_DIM, CLASSES), guide


def with_auxiliary(config, shape: Shape) -> Pair:
    classifier = AuxiliaryClassifier(of_images(config, ConvClassifier(shape, FEATURES)))
    encoder = JointMLP([AUXILIARY_DIM, shape, Classes(CLASSES)], HIDDEN, 2 * LATENT_DIM)
    guide = AuxiliaryGuide(MLP(shape, HIDDEN, 2 * AUXILIARY_DIM), classifier, encoder)
    skip = config.pair == "sdgm"
    decoder = JointMLP([AUXILIARY_DIM] * skip + [LATENT_DIM, Classes(CLASSES)], HIDDEN, shape)
    auxiliary = LabelledMLP(LATENT_DIM, CLASSES, HIDDEN, 2 * AUXILIARY_DIM)
    return AuxiliaryVAE(decoder, auxiliary, LATENT_DIM, CLASSES, skip=skip), guide


def of_images(config, network: nn.Module) -> nn.Module:
    """A network of images, in training of their random warps."""
    return nn.Sequential(RandomWarp(), network) if config.augment else network


def num_draws(config) -> int:
    """Draws of the latents before the label that a prediction averages over."""
    return 1 if config.pair == "m2" else DRAWS


def pair_name(pair: str, guide: str) -> str:
    """The name of a pair in tables."""
    return guide if pair == "m2" else pair
