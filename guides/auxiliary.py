"""A guide for a class, a style and an auxiliary variable: q(a | x) q(y | a, x) q(z | a, x, y).

Source: Maaløe, Sønderby, Sønderby and Winther 2016, "Auxiliary Deep Generative Models".
"""

from functools import partial

import pyro
from torch import Tensor, nn

from ppvae.distributions.gaussians import diagonal_normal
from ppvae.engine.contract import Guide
from ppvae.guides.labelled import sample_label


class AuxiliaryGuide(Guide):
    """q(a | x) q(y | a, x) q(z | a, x, y), with diagonal Gaussians and y enumerated; sites "a", "y" and "z".

    The class probabilities q(y | x) = E_q(a | x) q(y | a, x) have no closed form: ``ppvae.predict(guide, x,
    num_draws=100)`` averages over draws of a.

    Args:
        auxiliary: network (B, *event_shape) -> (B, 2 * auxiliary_dim).
        classifier: network of a (..., auxiliary_dim) and x to (..., C) logits, such as ``JointMLP``.
        encoder: network of a, x and y to (..., 2 * latent_dim).

    Example:

        >>> import torch
        >>> from ppvae.nn import Classes, JointMLP
        >>> classifier, encoder = JointMLP([2, 5], [8], 3), JointMLP([2, 5, Classes(3)], [8], 2 * 4)
        >>> guide = AuxiliaryGuide(nn.Linear(5, 2 * 2), classifier, encoder)
        >>> guide(torch.zeros(6, 5))  # inside a Pyro trace it draws a of length 2, y, and z of length 4
    """

    def __init__(self, auxiliary: nn.Module, classifier: nn.Module, encoder: nn.Module):
        super().__init__()
        self.auxiliary, self.classifier, self.encoder = auxiliary, classifier, encoder

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        """Draw sites "a" and "z", and "y" if no labels (B,) are given, for x of shape (B, *event_shape)."""
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", diagonal_normal(self.auxiliary(x)))
            y = sample_label(partial(self.classifier, a), x, y)
            pyro.sample("z", diagonal_normal(self.encoder(a, x, y)))
