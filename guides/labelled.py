"""Guides for a class and a style: q(y | x) beside q(z | x) or q(z | x, y).

Both draw "y" only when no label is given; it is enumerated, so that all classes are summed exactly.

Source: Kingma et al. 2014, "Semi-supervised Learning with Deep Generative Models", section 3.
"""

import pyro
from pyro import distributions as dist
from torch import Tensor, nn

from ppvae.distributions.gaussians import diagonal_normal
from ppvae.engine.contract import Guide


class LabelGuide(Guide):
    """q(y | x) q(z | x): the style's posterior is one for all classes, and costs one pass.

    Args:
        classifier: network (B, *event_shape) -> (B, C) logits.
        encoder: network (B, *event_shape) -> (B, 2 * latent_dim).
    """

    def __init__(self, classifier: nn.Module, encoder: nn.Module):
        super().__init__()
        self.classifier, self.encoder = classifier, encoder

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            sample_label(self.classifier, x, y)
            pyro.sample("z", diagonal_normal(self.encoder(x)))


class LabelStyleGuide(Guide):
    """q(y | x) q(z | x, y): the style's posterior knows the class.

    Args:
        classifier: network (B, *event_shape) -> (B, C) logits.
        encoder: network of x and y, such as ``LabelledMLP``, to (..., 2 * latent_dim).
    """

    def __init__(self, classifier: nn.Module, encoder: nn.Module):
        super().__init__()
        self.classifier, self.encoder = classifier, encoder

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            y = sample_label(self.classifier, x, y)
            pyro.sample("z", diagonal_normal(self.encoder(x, y)))


def sample_label(classifier: nn.Module, x: Tensor, y: Tensor | None) -> Tensor:
    """The label where it is given, else all classes of q(y | x) in parallel."""
    if y is not None:
        return y
    return pyro.sample("y", dist.Categorical(logits=classifier(x)), infer={"enumerate": "parallel"})
