"""One replay of a pair, as the densities that every objective and estimator is a function of.

The guide is traced once, the model is replayed once against it. For each site the particles keep its
distribution, its value and its log density, of shape ``(enumeration..., K, B)``: K particles, B data,
and one further dimension on the left for each enumerated discrete site.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from pyro import poutine
from pyro.distributions.distribution import Distribution
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import kl_divergence

from ppvae.errors import ContractError
from ppvae.isolation import evaluating, isolated
from ppvae.tracing import LABEL, all_known, distribution_at, require_classes, trace, trace_enumerated


@dataclass(frozen=True)
class Site:
    """One sample statement of a trace.

    Attributes:
        log_prob: log density at ``value``, in nats, shape ``(enumeration..., K, B)``; 0 where masked.
        masked: whether the site stands under ``pyro.poutine.mask``.
        enumerated: whether ``value`` runs over the whole support instead of being drawn.
    """

    name: str
    distribution: Distribution
    value: Tensor
    log_prob: Tensor
    enumerated: bool
    observed: bool
    masked: bool = False


@dataclass(frozen=True)
class Particles:
    """K weighted draws of the latent variables of each of B data; made by :func:`draw`.

    Attributes:
        guide: the guide's sites by name, in the order in which they were drawn.
        model: the model's sites by name, in the order in which they were scored.
        labels: labels of shape (B,), -1 where unknown; None if none were given.
        classify: ``classify(noise)`` runs the guide as far as its label and gives q(y | x), batch shape (B,); with
            noise=False in evaluation mode.
    """

    guide: dict[str, Site]
    model: dict[str, Site]
    num_particles: int
    batch_size: int
    labels: Tensor | None = None
    classify: Callable[[bool], Distribution] | None = field(default=None, repr=False)

    @cached_property
    def log_weight(self) -> Tensor:
        """log w_k = log sum_e p(x, z_k, e) / q(z_k | x, e), shape (K, B), in nats.

        The sum runs over every joint value e of the enumerated sites; where the label is known, over
        its own class alone. exp(log_weight) is an unbiased estimate of p(x), or of p(x, y) where y is
        known.
        """
        total = sum(site.log_prob for site in self.model.values())
        total = total - sum(site.log_prob for site in self.guide.values() if not site.enumerated)
        own_class = self._own_class
        if own_class is not None:
            known = self.labels >= 0
            total = total.masked_fill(known & ~own_class, -torch.inf)
        return self._per_particle(total).logsumexp(0)

    def kl(self, name: str, analytic: bool = True) -> Tensor:
        """E_q KL(q(name | ...) || p(name | ...)), shape (B,), in nats.

        Analytic where a closed form exists, no mask stands over the site, and every latent that stands before
        the site in the model was drawn before it by the guide as well; otherwise log q - log p at the sampled
        values, which has the same mean. (An analytic term whose prior depends on a latent drawn *later* is
        biased: that later draw is not independent of the site.)
        """
        return self.average(self.kl_integrand(name, analytic))

    def kl_integrand(self, name: str, analytic: bool = True) -> Tensor:
        """What :meth:`kl` averages over particles and enumeration: shape (enumeration..., K, B)."""
        q, p = self._latent(name), self.model[name]
        if analytic and not q.enumerated and not q.masked and not p.masked and self._prior_drawn_before(name):
            try:
                return kl_divergence(q.distribution, p.distribution)
            except NotImplementedError:
                pass
        return q.log_prob - p.log_prob

    @property
    def log_likelihood(self) -> Tensor:
        """Sum of the observed sites' log densities, shape (enumeration..., K, B), in nats."""
        return sum(site.log_prob for site in self.model.values() if site.observed)

    @property
    def log_label(self) -> Tensor:
        """log q(y | x) at the known labels, 0 where the label is unknown; shape (B,), in nats."""
        if self.labels is None:
            return next(iter(self.model.values())).log_prob.new_zeros(self.batch_size)
        q = self.label_site.distribution if LABEL in self.guide else self.classify(noise=True)
        log_q = q.log_prob(self.labels.clamp(min=0)).reshape(-1, self.batch_size).mean(0)
        return torch.where(self.labels >= 0, log_q, 0.0)

    @property
    def label_site(self) -> Site:
        """The enumerated site of the label, log_prob (C, K or 1, B); refused if q(y | x) has discrete parents."""
        site = self.guide[LABEL]
        if site.log_prob.dim() != 3 or site.distribution.batch_shape[:-2].numel() != 1:
            raise ContractError(
                f"expected q(y | x) that depends on no other discrete site, got log densities of shape "
                f"{tuple(site.log_prob.shape)} in the guide; draw the label before the other discrete sites"
            )
        return site

    def average(self, integrand: Tensor) -> Tensor:
        """Mean over particles, expectation over enumerated sites: (enumeration..., K, B) -> (B,)."""
        weight = self._enumeration_weight
        if weight is not None:  # 0 * inf is 0 here: what q rules out has no part in its expectation
            integrand = weight * integrand.masked_fill(weight == 0, 0.0)
        return self._per_particle(integrand).sum(0).mean(0)

    @cached_property
    def _enumeration_weight(self) -> Tensor | None:
        """q of each joint value of the enumerated sites; one-hot in a known label's own class."""
        enumerated = [site for site in self.guide.values() if site.enumerated]
        if not enumerated:
            return None
        weight = sum(site.log_prob for site in enumerated).exp()
        own_class = self._own_class
        if own_class is not None:
            # A known row's label site has log_prob 0, so `weight` holds the other sites alone there.
            weight = torch.where(self.labels >= 0, weight * own_class, weight)
        return weight

    @cached_property
    def _own_class(self) -> Tensor | None:
        if self.labels is None or LABEL not in self.guide:
            return None
        return self.guide[LABEL].value == self.labels

    def _latent(self, name: str) -> Site:
        if name not in self.guide:
            raise ContractError(f"expected the name of a latent site, got {name!r}; this pair has {sorted(self.guide)}")
        return self.guide[name]

    def _prior_drawn_before(self, name: str) -> bool:
        model_latents = [site.name for site in self.model.values() if not site.observed]
        guide_latents = list(self.guide)
        before = set(guide_latents[: guide_latents.index(name)])
        return before.issuperset(model_latents[: model_latents.index(name)])

    def _per_particle(self, total: Tensor) -> Tensor:
        """(enumeration..., K, B) -> (product of enumeration, K, B)."""
        shape = (self.num_particles, self.batch_size)
        return total.expand(*total.shape[:-2], *shape).reshape(-1, *shape)


def draw(model, guide, x: Tensor, y: Tensor | None = None, num_particles: int = 1) -> Particles:
    """Trace the guide, replay the model against it, keep every density.

    Args:
        model: called ``model(x, y)``; see :mod:`ppvae.contract`.
        guide: called ``guide(x, y)``.
        x: data of shape (B, *event_shape).
        y: labels of shape (B,), -1 where unknown, or None where none is known. If some but not all
            rows are labelled, model and guide are called without labels, every class is enumerated,
            and each labelled row is restricted to its own class.
        num_particles: draws of the latents per datum, K.

    Neither the global parameter store nor any parameter's name is touched.
    """
    with isolated(model, guide):
        particles = replay(model, guide, x, y, num_particles)
    return replace(particles, classify=lambda noise: _classify_isolated(guide, x, noise))


def replay(model, guide, x: Tensor, y: Tensor | None = None, num_particles: int = 1) -> Particles:
    """:func:`draw` in the caller's parameter store, as a stock ``pyro.infer.SVI`` loop needs it."""
    if num_particles < 1:
        raise ValueError(f"expected num_particles of at least 1, got {num_particles}")
    given = y if y is not None and all_known(y) else None
    guide_trace = trace_enumerated(guide, x, given, num_particles)
    model_trace = trace(poutine.replay(model, trace=guide_trace), x, given, num_particles)
    guide_sites, model_sites = _sites(guide_trace), _sites(model_trace)
    if y is not None and LABEL in guide_sites:
        if given is not None:
            raise ContractError(DRAWS_GIVEN_LABEL)
        guide_sites[LABEL] = _label_unknown_rows_only(guide_sites[LABEL], y)
    return Particles(
        guide_sites,
        model_sites,
        num_particles,
        len(x),
        labels=y,
        classify=lambda noise: _classify(guide, x, noise),
    )


def _classify_isolated(guide, x: Tensor, noise: bool) -> Distribution:
    with isolated(guide):
        return _classify(guide, x, noise)


def _classify(guide, x: Tensor, noise: bool) -> Distribution:
    with nullcontext() if noise else evaluating(guide):
        return distribution_at(guide, LABEL, x)


def _sites(trace) -> dict[str, Site]:
    return {
        name: Site(
            name,
            node["fn"],
            node["value"],
            _log_prob(name, node),
            enumerated="_enumerate_dim" in node["infer"],
            observed=node["is_observed"],
            masked=node["mask"] is not None,
        )
        for name, node in trace.nodes.items()
        if node["type"] == "sample" and not site_is_subsample(node)
    }


def _log_prob(name: str, node) -> Tensor:
    log_prob = node["fn"].log_prob(node["value"])
    mask = node["mask"]
    if mask is None:
        return log_prob
    if "_enumerate_dim" in node["infer"]:
        raise ContractError(
            f"expected the enumerated site {name!r} without a mask, got one: a masked row would count every value "
            "once. Leave the mask to the sites that depend on it"
        )
    return torch.where(torch.as_tensor(mask), log_prob, 0.0)


def _label_unknown_rows_only(site: Site, y: Tensor) -> Site:
    """A known label is an observation: q has no term for it."""
    if not site.enumerated or site.distribution.event_shape:
        raise ContractError(
            f'expected site "{LABEL}" to be a Categorical class index, enumerated, for partly known labels; got '
            f"{site.distribution}; use Categorical (not OneHotCategorical)"
        )
    require_classes(y, len(site.value))
    return replace(site, log_prob=torch.where(y >= 0, 0.0, site.log_prob))


DRAWS_GIVEN_LABEL = (
    f'expected the guide not to draw site "{LABEL}" when labels are given, but it does; '
    f'write `if y is None: y = pyro.sample("{LABEL}", ...)`'
)
