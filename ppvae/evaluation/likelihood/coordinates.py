"""The continuous latents of a model as one unconstrained vector u for each datum.

z = T(u),   log p(u) = log p(z) + log |det dT/du|
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import biject_to
from torch.distributions.transforms import Transform

from ppvae.engine.batch import Batch
from ppvae.engine.isolation import forked_randomness
from ppvae.engine.pair import Pair
from ppvae.engine.particles import Draws
from ppvae.engine.sites import Site
from ppvae.errors import ContractError
from ppvae.evaluation.requirements import is_discrete


@dataclass(frozen=True, eq=False)
class Coordinates:
    """The map between latents by name and one vector; made by :func:`coordinates_of`.

    Attributes:
        transforms: from unconstrained coordinates to the support of each latent.
        shapes: of one datum's coordinates, by name of the latent.

    Example:

        >>> from ppvae.models import LinearGaussian
        >>> pair = Pair(LinearGaussian(torch.eye(2), torch.zeros(2)), None)
        >>> coordinates = coordinates_of(pair, Batch(torch.zeros(3, 2)))
        >>> values, log_volume = coordinates.constrained(torch.zeros(5, 3, 2))
        >>> values["z"].shape, log_volume.shape
        (torch.Size([5, 3, 2]), torch.Size([5, 3]))
    """

    transforms: Mapping[str, Transform]
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def dim(self) -> int:
        """Length of u."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def unconstrained(self, values: Draws) -> Tensor:
        """u, shape (..., D), of latents of shapes (..., *event_shape) with the same leading dimensions."""
        parts = []
        for name, shape in self.shapes.items():
            part = self.transforms[name].inv(values[name])
            parts.append(part.reshape(*part.shape[: part.dim() - len(shape)], -1))
        return torch.cat(parts, -1)

    def constrained(self, u: Tensor) -> tuple[Draws, Tensor]:
        """The latents by name, and log |det dz/du| of shape (...), of u (..., D)."""
        values: Draws = {}
        leading, log_volume = u.shape[:-1], u.new_zeros(u.shape[:-1])
        sizes = [math.prod(shape) for shape in self.shapes.values()]
        for (name, shape), part in zip(self.shapes.items(), u.split(sizes, -1), strict=True):
            part, transform = part.reshape(*leading, *shape), self.transforms[name]
            values[name] = transform(part)
            volume = transform.log_abs_det_jacobian(part, values[name])
            log_volume = log_volume + volume.reshape(*leading, -1).sum(-1)
        return values, log_volume


def coordinates_of(pair: Pair, batch: Batch) -> Coordinates:
    """Coordinates of every continuous latent of the pair's model.

    Raises:
        ContractError: the support of a latent depends on another latent.

    Example:

        >>> from ppvae.models import LinearGaussian
        >>> pair = Pair(LinearGaussian(torch.eye(2), torch.zeros(2)), None)
        >>> coordinates_of(pair, Batch(torch.zeros(3, 2))).dim
        2
    """
    with forked_randomness(batch.x.device):
        sites, others = _continuous(pair, batch), _continuous(pair, batch)
    _require_fixed_supports(sites, others)
    transforms = {name: _unconstraining(site.distribution.support) for name, site in sites.items()}
    shapes = {name: tuple(transforms[name].inv(site.value).shape[2:]) for name, site in sites.items()}
    return Coordinates(transforms, shapes)


def _continuous(pair: Pair, batch: Batch) -> dict[str, Site]:
    sites = pair.prior(batch, 1).items()
    return {name: site for name, site in sites if not site.observed and not is_discrete(site.distribution)}


def _unconstraining(support: Any) -> Transform:
    """The map from unconstrained coordinates; a mixture has the support of its components."""
    return biject_to(getattr(support, "base_constraint", support) if "Mixture" in type(support).__name__ else support)


def _require_fixed_supports(sites: dict[str, Site], others: dict[str, Site]) -> None:
    """Raise ContractError where a support changed between two runs of the model: it depends on another latent."""
    moving = [
        name
        for name, site in sites.items()
        if not all(map(torch.equal, *(_bounds(each[name].distribution.support) for each in (sites, others))))
    ]
    if moving:
        raise ContractError(
            f"expected latents of a fixed support, got {moving}, whose support depends on another latent; let the "
            "model draw a variable of fixed support and map it"
        )


def _bounds(support: Any) -> list[Tensor]:
    """The numbers that a constraint is made of, including those of its base constraint."""
    own = [torch.as_tensor(v) for v in vars(support).values() if isinstance(v, Tensor | int | float)]
    return own + (_bounds(support.base_constraint) if hasattr(support, "base_constraint") else [])
