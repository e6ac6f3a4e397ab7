"""What the guide says of a datum: its class, its code."""

import torch
from torch import Tensor

from ppvae.data import Dataset
from ppvae.engine.isolation import evaluation_mode
from ppvae.engine.tracing import LABEL, distribution_at

ROWS = 1000  # data evaluated at once


def predict(guide, x: Tensor) -> Tensor:
    """q(y | x) of each datum, shape (B, C), in evaluation mode.

    Where the guide draws other latents before the label, it is q(y | x, those), at draws of a fixed seed.
    """
    return torch.cat([_in_evaluation(guide, LABEL, part).probs for part in x.split(ROWS)])


def accuracy(guide, data: Dataset) -> float:
    """Share of the rows whose most probable class is their label.

    Rows of dynamically binarized data are taken at their most probable binarization, so that the score has no
    randomness of its own.
    """
    if data.y is None or (data.y < 0).any():
        raise ValueError("expected data whose labels are all known, got unknown ones; use the test split")
    predicted = predict(guide, data.most_probable(slice(None))).argmax(-1)
    return (predicted == data.y).double().mean().item()


def features(guide, x: Tensor, y: Tensor | None = None, site: str = "z") -> Tensor:
    """Posterior means E q(site | x, y), shape (B, latent_dim): what M1 gives to M2.

    Args:
        guide: a guide that draws ``site``, in evaluation mode here.
        x: data, shape (B, *event_shape).
        y: labels, shape (B,), all known, for a guide that depends on them.
    """
    parts = [slice(start, start + ROWS) for start in range(0, len(x), ROWS)]
    means = [_in_evaluation(guide, site, x[part], None if y is None else y[part]).mean for part in parts]
    return torch.cat(means)


def _in_evaluation(guide, site: str, x: Tensor, y: Tensor | None = None):
    with evaluation_mode(guide, device=x.device, seed=0):
        return distribution_at(guide, site, x, y)
