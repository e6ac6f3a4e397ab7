"""Predictions of a guide: classes, accuracy, posterior means."""

from collections.abc import Callable
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from ppvae.engine.batch import Array, Batch, HasBatch
from ppvae.engine.evaluation import evaluation
from ppvae.engine.pair import Pair, Replay
from ppvae.engine.tracing import LABEL, distribution_at
from ppvae.errors import ContractError, require_count
from ppvae.evaluation.binarization import fixed
from ppvae.evaluation.disentanglement.representation import mean_of
from ppvae.evaluation.progress import blocks

ROWS = 1000  # data evaluated at once
DRAWS = 20_000  # of the latents before a site, for all data that are evaluated at once


def predict(
    guide: Any,
    data: Batch | HasBatch | Array,
    *,
    site: str = LABEL,
    num_draws: int = 1,
    seed: int = 0,
    **given: Array,
) -> Tensor:
    """q(y | x) of each datum, shape (B, C), with the guide in evaluation mode.

    Where the guide draws other latents a before the label, it is the mean of q(y | a_k, x) over K draws a_k ~ q(a | x),
    an unbiased estimate of q(y | x). Otherwise it is exact for every K.

    Args:
        guide: a guide that draws ``site`` where no label is given.
        data: a ``Dataset``, a tensor or a numpy array of shape (B, *event_shape). Labels are not read. Dynamically
            binarized data are taken at their most probable binarization, so that the result is the same at each call.
        site: a categorical latent: the label, or "c" of a :class:`~ppvae.guides.RecognitionGuide`.
        num_draws: K.
        seed: of the draws; the caller's random state does not change.
        given: conditions of B rows each.

    Raises:
        ContractError: the guide does not draw ``site``, it is not categorical, or a condition does not fit.
        ValueError: ``num_draws`` is less than 1.

    Example:

        >>> import ppvae
        >>> from ppvae.guides import LabelGuide
        >>> guide = LabelGuide(ppvae.nn.MLP(2, [], 4), ppvae.nn.MLP(2, [], 6))
        >>> ppvae.predict(guide, torch.zeros(3, 2)).shape
        torch.Size([3, 4])
    """
    num_draws = require_count("num_draws", num_draws)
    with evaluation(None, guide, fixed(data), None, given, seed) as (pair, batch):
        return _probabilities(pair, batch, site, num_draws)


def accuracy(
    guide: Any,
    data: Batch | HasBatch | Array,
    y: Array | None = None,
    *,
    num_draws: int = 1,
    seed: int = 0,
    **given: Array,
) -> float:
    """Share of the rows where the most probable class of :func:`predict` is the label, from 0 to 1.

    Args:
        guide: a guide that draws site "y" where no label is given.
        data: a ``Dataset`` with labels, or a tensor or a numpy array with ``y``.
        y: labels, all known, shape (B,).
        num_draws: of the latents before the label; see :func:`predict`.
        seed: of the draws.
        given: conditions of B rows each.

    Raises:
        ValueError: a label is unknown, or ``num_draws`` is less than 1.

    Example:

        >>> import ppvae
        >>> from ppvae.guides import LabelGuide
        >>> guide = LabelGuide(ppvae.nn.MLP(2, [], 4), ppvae.nn.MLP(2, [], 6))
        >>> 0 <= ppvae.accuracy(guide, torch.zeros(3, 2), torch.tensor([0, 1, 3])) <= 1
        True
    """
    num_draws = require_count("num_draws", num_draws)
    with evaluation(None, guide, fixed(data), y, given, seed) as (pair, batch):
        if batch.label is None:
            raise ValueError("expected data with labels that are all known, got unknown ones; use the test split")
        return (_probabilities(pair, batch, LABEL, num_draws).argmax(-1) == batch.label).double().mean().item()


def features(
    guide: Any,
    data: Batch | HasBatch | Array,
    y: Array | None = None,
    *,
    site: str = "z",
    num_draws: int = 1,
    seed: int = 0,
    **given: Array,
) -> Tensor:
    """Posterior means E q(site | x, y), shape (B, *event_shape of z): what M1 gives to M2.

    Where the guide draws other latents before the site, it is the mean over K draws of them.

    Args:
        guide: a guide that draws ``site``, in evaluation mode here. A mean without formula is that of 32 draws.
        data: a ``Dataset``, a tensor or a numpy array of shape (B, *event_shape). Dynamically binarized data are taken
            at their most probable binarization.
        y: labels, shape (B,), all known, for a guide that depends on them.
        site: a continuous latent.
        num_draws: K.
        seed: of the draws; the caller's random state does not change.
        given: conditions of B rows each.

    Raises:
        ContractError: the guide does not draw ``site``, or it is discrete.
        ValueError: ``num_draws`` is less than 1.

    Example:

        >>> import ppvae
        >>> from ppvae.guides import MeanFieldGaussian
        >>> ppvae.features(MeanFieldGaussian(ppvae.nn.MLP(2, [], 6)), torch.zeros(4, 2)).shape
        torch.Size([4, 3])
    """
    num_draws = require_count("num_draws", num_draws)

    def means(part: Batch) -> Tensor:
        q = distribution_at(guide, site, part, num_draws=num_draws)
        return _mean_over_draws(mean_of(q, site), q)

    with evaluation(None, guide, fixed(data), y, given, seed) as (_, batch):
        return _by_block(batch, num_draws, means)


def _probabilities(pair: Pair, batch: Batch, site: str, num_draws: int) -> Tensor:
    """q(site | x), shape (B, C)."""

    def probabilities(part: Batch) -> Tensor:
        q = Replay(pair, part, 1).classify(site, noise=False, num_draws=num_draws)
        if not hasattr(q, "probs"):
            raise ContractError(
                f"expected a categorical latent at site {site!r}, got a {type(q).__name__}; ppvae.features gives its "
                "means"
            )
        return _mean_over_draws(q.probs, q)

    return _by_block(batch, num_draws, probabilities)


def _mean_over_draws(values: Tensor, q: TorchDistribution) -> Tensor:
    """The mean of values (num_draws, B, ...) of q; values (B, ...) of a q that depends on no draw as they are."""
    return values.mean(0) if len(q.batch_shape) > 1 else values


def _by_block(batch: Batch, num_draws: int, function: Callable[[Batch], Tensor]) -> Tensor:
    size = max(1, min(ROWS, DRAWS // num_draws))
    return torch.cat([function(batch.rows(block)) for block in blocks(len(batch), size)])
