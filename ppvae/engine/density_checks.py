"""The checks of values and densities: their shapes, and that they are finite."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ppvae.distributions.implicit import has_density
from ppvae.engine.batch import Batch
from ppvae.engine.checks import CHECKED_PARTICLES
from ppvae.engine.pair import Pair
from ppvae.engine.remedies import cause
from ppvae.engine.sites import Site
from ppvae.engine.supports import is_point_mass
from ppvae.errors import ContractError


def check_densities(model: Any, guide: Any, batch: Batch) -> None:
    """Raise ContractError where a density has the wrong shape or a weight is not finite.

    A point mass is not refused here: objectives that read no density of q take it.

    Example:

        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> model, guide = LinearGaussian(torch.eye(2), torch.zeros(2)), MeanFieldGaussian(torch.nn.Linear(2, 4))
        >>> check_densities(model, guide, Batch(torch.zeros(3, 2)))
    """
    particles = Pair(model, guide).draw(batch, CHECKED_PARTICLES)
    for role, sites in (("guide", particles.guide), ("model", particles.model)):
        for site in sites.values():
            _check_density_shape(role, site, len(batch))
    point_masses = [name for name, site in particles.guide.items() if is_point_mass(site.distribution)]
    for name in particles.guide.keys() - set(point_masses):
        particles.require_weight(name)
    if point_masses:
        return
    if not torch.isfinite(particles.log_weight).all():
        row = int((~torch.isfinite(particles.log_weight)).any(0).nonzero()[0])
        raise ContractError(
            f"expected finite log weights, got {particles.log_weight[:, row].tolist()} in row {row} of those checked. "
            f"{cause(batch.rows(slice(row, row + 1)))}"
        )


def check_values(sites: Iterable[Site], batch: Batch) -> None:
    """Raise ContractError where a value or a density is NaN.

    Example:

        >>> site = Site("z", torch.distributions.Normal(torch.zeros(1, 3), 1.0), torch.tensor([[0.0, torch.nan, 0.0]]))
        >>> check_values([site], Batch(torch.zeros(3, 1)))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ppvae.errors.ContractError: expected values and densities without NaN, got NaN at site 'z' in row 1 of those...
    """
    for site in sites:
        fn, event_dim = site.distribution, len(site.distribution.event_shape)
        bad = _any_nan(fn.sample() if site.observed and not has_density(fn) else site.value, event_dim)
        if has_density(fn) and (site.observed or not bad.any()):  # NaN in x marks a missing element
            bad = site.log_prob.isnan()
        rows = bad.reshape(-1, bad.shape[-1]).any(0).nonzero()[:, 0]
        if len(rows):
            row = int(rows[0])
            raise ContractError(
                f"expected values and densities without NaN, got NaN at site {site.name!r} in row {row} of those "
                f"checked. {cause(batch.rows(slice(row, row + 1)))}"
            )


def _any_nan(value: Tensor, event_dim: int) -> Tensor:
    return value.reshape(*value.shape[: value.dim() - event_dim], -1).isnan().any(-1)


def _check_density_shape(role: str, site: Site, rows: int) -> None:
    shape = site.log_prob.shape[-2:]
    if len(shape) != 2 or shape[0] not in (1, CHECKED_PARTICLES) or shape[1] not in (1, rows):
        raise ContractError(
            f"expected the log density of {role} site {site.name!r} to have shape (..., {CHECKED_PARTICLES}, {rows}) "
            f"for {CHECKED_PARTICLES} particles, got {tuple(site.log_prob.shape)}; a .to_event(n) is missing or too "
            "much"
        )
