"""Predictions of a guide: classes, accuracy, posterior means."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ppvae.engine.batch import Array, Batch, HasBatch
from ppvae.engine.evaluation import evaluation
from ppvae.engine.pair import Pair, Replay
from ppvae.engine.tracing import LABEL, distribution_at
from ppvae.errors import ContractError
from ppvae.evaluation.binarization import fixed
from ppvae.evaluation.disentanglement.representation import mean_of
from ppvae.evaluation.progress import blocks

ROWS = 1000  # data evaluated at once


def predict(guide: Any, data: Batch | HasBatch | Array, *, site: str = LABEL, **given: Array) -> Tensor:
    """q(y | x) of each datum, shape (B, C), with the guide in evaluation mode.

    Where the guide draws other latents before the label, it is q(y | x, those), at draws of a fixed seed.

    Args:
        guide: a guide that draws ``site`` where no label is given.
        data: a ``Dataset``, a tensor or a numpy array of shape (B, *event_shape). Labels are not read. Dynamically
            binarized data are taken at their most probable binarization, so that the result is the same at each call.
        site: a categorical latent: the label, or "c" of a :class:`~ppvae.guides.RecognitionGuide`.
        given: conditions of B rows each.

    Raises:
        ContractError: the guide does not draw ``site``, it is not categorical, or a condition does not fit.

    Example:

        >>> import ppvae
        >>> from ppvae.guides import LabelGuide
        >>> guide = LabelGuide(ppvae.nn.MLP(2, [], 4), ppvae.nn.MLP(2, [], 6))
        >>> ppvae.predict(guide, torch.zeros(3, 2)).shape
        torch.Size([3, 4])
    """
    with evaluation(None, guide, fixed(data), None, given) as (pair, batch):
        return _probabilities(pair, batch, site)


def accuracy(guide: Any, data: Batch | HasBatch | Array, y: Array | None = None, **given: Array) -> float:
    """Share of the rows where the most probable class of :func:`predict` is the label, from 0 to 1.

    Args:
        guide: a guide that draws site "y" where no label is given.
        data: a ``Dataset`` with labels, or a tensor or a numpy array with ``y``.
        y: labels, all known, shape (B,).
        given: conditions of B rows each.

    Raises:
        ValueError: a label is unknown.

    Example:

        >>> import ppvae
        >>> from ppvae.guides import LabelGuide
        >>> guide = LabelGuide(ppvae.nn.MLP(2, [], 4), ppvae.nn.MLP(2, [], 6))
        >>> 0 <= ppvae.accuracy(guide, torch.zeros(3, 2), torch.tensor([0, 1, 3])) <= 1
        True
    """
    with evaluation(None, guide, fixed(data), y, given) as (pair, batch):
        if batch.label is None:
            raise ValueError("expected data with labels that are all known, got unknown ones; use the test split")
        return (_probabilities(pair, batch).argmax(-1) == batch.label).double().mean().item()


def features(
    guide: Any, data: Batch | HasBatch | Array, y: Array | None = None, *, site: str = "z", **given: Array
) -> Tensor:
    """Posterior means E q(site | x, y), shape (B, *event_shape of z): what M1 gives to M2.

    Args:
        guide: a guide that draws ``site``, in evaluation mode here. A mean without formula is that of 32 draws.
        data: a ``Dataset``, a tensor or a numpy array of shape (B, *event_shape). Dynamically binarized data are taken
            at their most probable binarization.
        y: labels, shape (B,), all known, for a guide that depends on them.
        site: a continuous latent.
        given: conditions of B rows each.

    Raises:
        ContractError: the guide does not draw ``site``, or it is discrete.

    Example:

        >>> import ppvae
        >>> from ppvae.guides import MeanFieldGaussian
        >>> ppvae.features(MeanFieldGaussian(ppvae.nn.MLP(2, [], 6)), torch.zeros(4, 2)).shape
        torch.Size([4, 3])
    """
    with evaluation(None, guide, fixed(data), y, given) as (_, batch):
        return _by_block(batch, lambda part: mean_of(distribution_at(guide, site, part), site))


def _probabilities(pair: Pair, batch: Batch, site: str = LABEL) -> Tensor:
    """q(site | x), shape (B, C)."""
    return _by_block(batch, lambda part: _categorical(Replay(pair, part, 1).classify(site, noise=False), site).probs)


def _categorical(q: Any, site: str) -> Any:
    if not hasattr(q, "probs"):
        raise ContractError(
            f"expected a categorical latent at site {site!r}, got a {type(q).__name__}; ppvae.features gives its means"
        )
    return q


def _by_block(batch: Batch, function: Callable[[Batch], Tensor]) -> Tensor:
    return torch.cat([function(batch.rows(block)) for block in blocks(len(batch), ROWS)])
