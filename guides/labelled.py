"""Guides for a class and a style: q(y | x) with q(z | x) or q(z | x, y).

Both draw "y" only if no label is given. It is enumerated, so that all classes are summed exactly.

Source: Kingma et al. 2014, "Semi-supervised Learning with Deep Generative Models", section 3.
"""

from collections.abc import Callable

import pyro
from pyro import distributions as dist
from torch import Tensor, nn

from ppvae.distributions.gaussians import diagonal_normal
from ppvae.engine.contract import Guide


class LabelGuide(Guide):
    """q(y | x) q(z | x): one posterior of the style for all classes, at the cost of one pass; sites "y" and "z".

    Args:
        classifier: network (B, *event_shape) -> (B, C) logits.
        encoder: network (B, *event_shape) -> (B, 2 * latent_dim).

    Example:

        >>> import torch
        >>> LabelGuide(nn.Linear(5, 3), nn.Linear(5, 4))(torch.zeros(2, 5))  # inside a Pyro trace it draws y and z
    """

    def __init__(self, classifier: nn.Module, encoder: nn.Module):
        super().__init__()
        self.classifier, self.encoder = classifier, encoder

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        """Draw site "z", and "y" if no labels (B,) are given, for x of shape (B, *event_shape)."""
        with pyro.plate("data", len(x)):
            sample_label(self.classifier, x, y)
            pyro.sample("z", diagonal_normal(self.encoder(x)))


class LabelStyleGuide(Guide):
    """q(y | x) q(z | x, y): the posterior of the style depends on the class; sites "y" and "z".

    Args:
        classifier: network (B, *event_shape) -> (B, C) logits.
        encoder: network of x and y, such as ``LabelledMLP``, to (..., 2 * latent_dim).

    Example:

        >>> import torch
        >>> from ppvae.nn import LabelledMLP
        >>> guide = LabelStyleGuide(nn.Linear(5, 3), LabelledMLP(5, num_classes=3, hidden=[8], out_shape=4))
        >>> guide(torch.zeros(2, 5), torch.tensor([0, 2]))  # inside a Pyro trace it draws z
    """

    def __init__(self, classifier: nn.Module, encoder: nn.Module):
        super().__init__()
        self.classifier, self.encoder = classifier, encoder

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        """Draw site "z", and "y" if no labels (B,) are given, for x of shape (B, *event_shape)."""
        with pyro.plate("data", len(x)):
            y = sample_label(self.classifier, x, y)
            pyro.sample("z", diagonal_normal(self.encoder(x, y)))


def sample_label(classifier: Callable[[Tensor], Tensor], x: Tensor, y: Tensor | None) -> Tensor:
    """The labels if they are given, else all classes of q(y | x), enumerated in parallel.

    Example:

        >>> import torch
        >>> sample_label(nn.Linear(5, 3), torch.zeros(2, 5), torch.tensor([0, 2]))
        tensor([0, 2])
    """
    if y is not None:
        return y
    return pyro.sample("y", dist.Categorical(logits=classifier(x)), infer={"enumerate": "parallel"})
