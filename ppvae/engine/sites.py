"""The sample statements of a trace, with their log densities."""

import traceback
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from pyro.distributions.torch_distribution import MaskedDistribution
from torch import Tensor

from ppvae.distributions.implicit import has_density
from ppvae.engine.requirements import cannot_score
from ppvae.engine.tracing import check_site, sample_nodes
from ppvae.errors import ContractError


@dataclass(frozen=True, eq=False)
class Site:
    """One sample statement of a trace.

    Attributes:
        name: of the site.
        distribution: batch shape broadcasts to ``(enumeration..., K, B)``.
        value: what was drawn, observed or enumerated.
        enumerated: whether ``value`` runs over the whole support instead of being drawn.
        observed: whether ``value`` is data.
        mask: of ``pyro.poutine.mask``, or None.
        known: rows where the value is data, bool (B,); None if there are none. The site is enumerated, and ``data``
            has its value in those rows.
        data: shape (B,); see ``known``.
        with_gradient: whether the log density has a gradient, whenever it is read.

    Example:

        >>> site = Site("z", torch.distributions.Normal(torch.zeros(5, 3), 1.0), torch.zeros(5, 3))
        >>> site.log_prob.shape
        torch.Size([5, 3])
    """

    name: str
    distribution: TorchDistribution
    value: Tensor
    enumerated: bool = False
    observed: bool = False
    mask: Any = None
    known: Tensor | None = None
    data: Tensor | None = None
    with_gradient: bool = True

    @cached_property
    def log_prob(self) -> Tensor:
        """Log density at ``value``, in nats, shape ``(enumeration..., K, B)``; 0 where masked. Computed when read."""
        if not has_density(self.distribution):
            raise ContractError(
                f"expected distributions that have a density, got {type(self.distribution).__name__} at site "
                f"{self.name!r}, which has no log_prob"
            )
        with torch.set_grad_enabled(self.with_gradient):
            log_prob = self.distribution.log_prob(self.value)
            return log_prob if self.mask is None else torch.where(torch.as_tensor(self.mask), log_prob, 0.0)

    @property
    def log_q(self) -> Tensor:
        """The log density of a guide's site: :attr:`log_prob`, and 0 in rows whose value is data."""
        return self.log_prob if self.known is None else torch.where(self.known, 0.0, self.log_prob)

    def detached(self) -> "Site":
        """The same site, with a log density without gradient."""
        site = replace(self)
        site.__dict__["log_prob"] = self.log_prob.detach()  # where cached_property keeps it
        return site


def sites_of(role: str, traced: poutine.Trace, num_particles: int, batch_size: int) -> dict[str, Site]:
    """The sample statements of a Pyro trace. Raises ContractError for one outside the plate, or scaled.

    Example:

        >>> from ppvae.engine.tracing import trace
        >>> from ppvae.models import LinearGaussian
        >>> model = LinearGaussian(torch.eye(2), torch.zeros(2))
        >>> traced = trace(model, ((torch.zeros(3, 2),), {}), num_particles=5)
        >>> sites = sites_of("model", traced, num_particles=5, batch_size=3)
        >>> sites["z"].value.shape, sites["x"].observed
        (torch.Size([5, 3, 2]), True)
    """
    sites = {}
    for name, node in sample_nodes(traced).items():
        check_site(role, name, node, num_particles, batch_size)
        enumerated, mask = "_enumerate_dim" in node["infer"], _mask_of(node)
        if enumerated and mask is not None:
            raise ContractError(
                f"expected the enumerated site {name!r} without a mask, got one: a masked row would count every value "
                "once. Leave the mask to the sites that depend on it"
            )
        sites[name] = Site(
            name,
            node["fn"],
            node["value"],
            enumerated,
            observed=node["is_observed"],
            mask=mask,
            with_gradient=torch.is_grad_enabled(),
        )
    return sites


def _mask_of(node: Any) -> Any:
    """The mask of a site, by ``poutine.mask`` or ``distribution.mask(...)``; None if there is none."""
    fn = node["fn"]
    while node["mask"] is None and fn is not None:
        if isinstance(fn, MaskedDistribution):
            return fn._mask
        fn = getattr(fn, "base_dist", None)
    return node["mask"]


def scored(guide: Any, sites: dict[str, Site]) -> dict[str, Site]:
    """The same sites, with each log density computed. Raises ContractError where a transform has no inverse.

    Example:

        >>> site = Site("z", torch.distributions.Normal(torch.zeros(5, 3), 1.0), torch.zeros(5, 3))
        >>> list(scored(None, {"z": site}))
        ['z']
    """
    for site in sites.values():
        try:
            _ = site.log_prob
        except (NotImplementedError, KeyError) as error:
            if not _from_an_inverse(error):
                raise
            raise ContractError(cannot_score(guide)) from error
    return sites


def _from_an_inverse(error: Exception) -> bool:
    """Whether a transform itself says that it has no inverse, and not a network that it calls."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_code.co_name == "_inverse"
