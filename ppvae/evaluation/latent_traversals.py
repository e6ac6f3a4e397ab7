"""Traversals: E[x | z] while one element of a code moves."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ppvae.engine.batch import Array, Batch, HasBatch
from ppvae.engine.evaluation import evaluation
from ppvae.engine.pair import Pair
from ppvae.engine.tracing import OBSERVED, arguments, sample_nodes, trace
from ppvae.errors import ContractError
from ppvae.evaluation.disentanglement.representation import mean_of
from ppvae.evaluation.generation import mean_or_draw

VALUES = tuple(v / 2 for v in range(-4, 5))


def traversals(
    model: Any,
    guide: Any,
    data: Batch | HasBatch | Array,
    y: Array | None = None,
    *,
    site: str = "z",
    values: Sequence[float] = VALUES,
    seed: int = 0,
    **given: Array,
) -> Tensor:
    """E[x | z] with one element of z = E_q[z | x] after the other set to each of some values.

    Where the distribution of x has no mean, it is a draw.

    Args:
        model: generative model.
        guide: its guide.
        data: one datum: a ``Dataset``, a tensor or a numpy array of shape (1, *event_shape).
        y: its label, shape (1,); or None.
        site: a latent of shape (D,). Other latents, discrete ones too, are drawn from the guide, the same for every
            code.
        values: V of them, in units of z.
        seed: of what is drawn: other latents, and 32 draws for a mean without formula.
        given: conditions of one row each.

    Returns:
        Tensor of shape (D, V, *event_shape).

    Raises:
        ContractError: more than one datum, a latent that is no vector.
        ValueError: no value, or one that is not finite.

    Example:

        >>> import ppvae
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> model = LinearGaussian(torch.eye(2), torch.zeros(2))
        >>> guide = MeanFieldGaussian(ppvae.nn.MLP(2, [], 4))
        >>> moved = ppvae.traversals(model, guide, torch.zeros(1, 2), values=(-1.0, 0.0, 1.0))
        >>> moved.shape, moved[0, :, 0]
        (torch.Size([2, 3, 2]), tensor([-1.,  0.,  1.]))
    """
    if not len(values) or not all(map(math.isfinite, values)):
        raise ValueError(f"expected finite values to move an element to, at least one, got {tuple(values)}")
    with evaluation(model, guide, data, y, given, seed=seed) as (pair, batch):
        if len(batch) != 1:
            raise ContractError(f"expected one datum, shape (1, ...), got {len(batch)}")
        mean, others = _code(pair, batch, site)
        codes = torch.stack([_moved(mean, d, value) for d in range(len(mean)) for value in values])
        latents = {name: value.expand(1, len(codes), *value.shape[2:]) for name, value in others.items()}
        many = batch.rows(torch.zeros(len(codes), dtype=torch.long, device=codes.device))
        images = mean_or_draw(pair.model_at(many, {**latents, site: codes.unsqueeze(0)}, 1)[OBSERVED].distribution)
    return images.reshape(len(mean), len(values), *batch.x.shape[1:])


def _code(pair: Pair, batch: Batch, site: str) -> tuple[Tensor, dict[str, Tensor]]:
    """E_q[z | x] of one latent given the draws of those before it, shape (D,), and draws of all, (1, 1, *event)."""
    nodes = sample_nodes(trace(pair.guide, arguments(pair.guide, batch), 1))
    if site not in nodes:
        raise ContractError(f"expected the name of a latent site, got {site!r}; this pair has {sorted(nodes)}")
    fn = nodes[site]["fn"]
    mean = mean_of(fn, site)
    if len(fn.event_shape) != 1:
        raise ContractError(f"expected a latent of shape (D,), got {site!r} of shape {tuple(fn.event_shape)}")
    return mean.reshape(fn.event_shape), {name: node["value"] for name, node in nodes.items()}


def _moved(z: Tensor, element: int, value: float) -> Tensor:
    return torch.where(torch.arange(len(z), device=z.device) == element, value, z)
