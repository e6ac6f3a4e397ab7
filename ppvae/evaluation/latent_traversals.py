"""What the model makes of a code when one of its elements is moved."""

import math
from collections.abc import Sequence

import pyro
import torch
from pyro import poutine
from torch import Tensor

from ppvae.engine.checks import check_input, check_parameters, to_device_of
from ppvae.engine.contract import check_pair
from ppvae.engine.isolation import evaluation_mode
from ppvae.engine.pair import draw
from ppvae.engine.tracing import OBSERVED, distribution_at
from ppvae.errors import ContractError
from ppvae.evaluation.disentanglement.representation import mean_of

VALUES = tuple(v / 2 for v in range(-4, 5))


def traversals(model, guide, x: Tensor, *, site: str = "z", values: Sequence[float] = VALUES, seed: int = 0) -> Tensor:
    """E[x | z] with one element of z = E_q[z | x] after the other set to each of some values.

    Args:
        model: generative model.
        guide: its guide.
        x: one datum, shape (1, *event_shape).
        site: a latent of shape (D,). Other latents are drawn from the guide, the same for every code.
        values: V of them, in units of z.
        seed: of what is drawn: other latents, and 32 draws for a mean that has no formula.

    Returns:
        Tensor of shape (D, V, *event_shape).

    Raises ContractError for more than one datum, a latent that is no vector, and a pair with discrete sites;
    ValueError for no value, or one that is not finite.
    """
    if not len(values) or not all(map(math.isfinite, values)):
        raise ValueError(f"expected finite values to move an element to, at least one, got {tuple(values)}")
    check_parameters(model, guide)
    check_input(x, None)
    x = to_device_of(model, x)
    if len(x) != 1:
        raise ContractError(f"expected one datum, shape (1, ...), got {len(x)}")
    check_pair(model, guide, x)
    with evaluation_mode(model, guide, device=x.device, seed=seed), pyro.validation_enabled(False):
        particles = draw(model, guide, x)
        sites, fn = particles.guide, particles.latent(site).distribution
        mean = mean_of(fn, site)  # given the draws of the latents before it
        if any(latent.enumerated for latent in sites.values()):
            raise ContractError(f"expected a pair without discrete sites, got {list(sites)}")
        if len(fn.event_shape) != 1:
            raise ContractError(f"expected a latent of shape (D,), got {site!r} of shape {tuple(fn.event_shape)}")
        mean = mean.reshape(fn.event_shape)
        codes = torch.stack([_moved(mean, d, value) for d in range(len(mean)) for value in values])
        drawn = {name: latent.value[0] for name, latent in sites.items()}
        latents = {name: value.expand(len(codes), *value.shape[1:]) for name, value in drawn.items()}
        many = x.expand(len(codes), *x.shape[1:])
        images = distribution_at(poutine.condition(model, {**latents, site: codes}), OBSERVED, many).mean
    return images.reshape(len(mean), len(values), *x.shape[1:])


def _moved(z: Tensor, element: int, value: float) -> Tensor:
    return torch.where(torch.arange(len(z), device=z.device) == element, value, z)
