"""One replay of a pair, as the densities that every objective and estimator is a function of.

For each site the particles keep its distribution, its value and its log density, of shape
``(enumeration..., K, B)``: K particles, B data, and one further dimension on the left for each enumerated
discrete site. They are made by :func:`ppvae.draw`.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from pyro.distributions.distribution import Distribution
from torch import Tensor
from torch.distributions import kl_divergence

from ppvae.engine.tracing import LABEL
from ppvae.errors import ContractError

if TYPE_CHECKING:
    from ppvae.engine.pair import Source


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
    """K weighted draws of the latent variables of each of B data; made by :func:`ppvae.draw`.

    Attributes:
        guide: the guide's sites by name, in the order in which they were drawn.
        model: the model's sites by name, in the order in which they were scored.
        labels: labels of shape (B,), -1 where unknown; None if none were given.
        gates: the draws as the model sees them: the same numbers, by name.
        weighed: not empty once :meth:`weigh_path` was called.
        step: of the training that they are for, if any.
        source: the pair and the data that they came from, for what needs a further run of the guide.
    """

    guide: dict[str, Site]
    model: dict[str, Site]
    num_particles: int
    batch_size: int
    labels: Tensor | None = None
    gates: dict[str, Tensor] = field(default_factory=dict, repr=False)
    source: "Source | None" = field(default=None, repr=False)
    weighed: list[bool] = field(default_factory=list, repr=False)
    step: int | None = None

    @cached_property
    def log_weight(self) -> Tensor:
        """log w_k = log sum_e p(x, z_k, e) / q(z_k | x, e), shape (K, B), in nats.

        The sum runs over every joint value e of the enumerated sites; where the label is known, over
        its own class alone. exp(log_weight) is an unbiased estimate of p(x), or of p(x, y) where y is
        known.
        """
        return self._flat(self.joint_log_weight(self.guide)).logsumexp(0)

    def joint_log_weight(self, guide: dict[str, Site]) -> Tensor:
        """log p(x, z_k, e) / q(z_k | x, e), shape (enumeration..., K, B), in nats; -inf in classes known not to be.

        Args:
            guide: the guide's sites, such as ``particles.guide`` or :meth:`frozen_guide`.
        """
        total = sum(site.log_prob for site in self.model.values())
        total = total - sum(site.log_prob for site in guide.values() if not site.enumerated)
        own_class = self._own_class
        if own_class is not None:
            total = total.masked_fill((self.labels >= 0) & ~own_class, -torch.inf)
        return self._expanded(total)

    def frozen_guide(self) -> dict[str, Site]:
        """The guide's sites with the same log densities, whose gradient goes into the guide through the draws alone.

        What they leave out, the gradient of log q by its parameters at a fixed draw, has mean zero.
        """
        return self.source.score(self.gates, freeze=True)

    def detached_guide(self) -> dict[str, Site]:
        """The guide's sites with the same log densities, whose gradient goes into its parameters at fixed draws."""
        return self.source.score({name: value.detach() for name, value in self.gates.items()}, freeze=False)

    def weigh_path(self, weight: Tensor) -> None:
        """Multiply the gradient that flows from the model and :meth:`frozen_guide` back into each draw.

        This holds for every loss of these particles, so only one estimator can weigh them.

        Args:
            weight: shape (enumeration..., K, B); summed over the enumerated sites that a draw does not depend on.
        """
        if self.weighed:
            raise ContractError(
                "expected draws whose gradient is not weighed yet, got some that DReG or ReweightedWakeSleep weighed; "
                "draw anew for each of them"
            )
        self.weighed.append(True)
        for name, value in self.gates.items():
            if value.requires_grad:
                event_dim = self.guide[name].distribution.event_dim
                factor = weight.sum_to_size(value.shape[: value.dim() - event_dim])
                factor = factor.reshape(factor.shape + (1,) * event_dim)
                value.register_hook(lambda g, factor=factor: torch.where(factor == 0, 0.0, g * factor))

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
        q, p = self.latent(name), self.model[name]
        if name == LABEL and self.labels is not None:  # a known label is an observation
            return torch.where(self.labels >= 0, 0.0, q.log_prob - p.log_prob)
        if analytic and not q.enumerated and not q.masked and not p.masked and self.prior_drawn_before(name):
            try:
                return kl_divergence(q.distribution, p.distribution)
            except NotImplementedError:
                pass
        return q.log_prob - p.log_prob

    def require_reparameterised(self) -> None:
        """Raise ContractError if a draw of a guide that learns hides its parameters from the gradient."""
        for site in self.guide.values():
            if not site.enumerated and site.log_prob.requires_grad and not site.distribution.has_rsample:
                raise ContractError(
                    f"expected reparameterised draws (rsample) of site {site.name!r}, got {site.distribution}, whose "
                    "draws pass no gradient on; use ReweightedWakeSleep or ForwardKL, or Pyro's Trace_ELBO in fit"
                )

    @property
    def log_likelihood(self) -> Tensor:
        """Sum of the observed sites' log densities, known labels' too, shape (enumeration..., K, B), in nats."""
        total = sum(site.log_prob for site in self.model.values() if site.observed)
        if self.labels is not None and LABEL in self.guide:
            total = total + torch.where(self.labels >= 0, self.model[LABEL].log_prob, 0.0)
        return total

    @property
    def log_label(self) -> Tensor:
        """log q(y | x) at the known labels, 0 where the label is unknown; shape (B,), in nats."""
        if self.labels is None:
            return next(iter(self.model.values())).log_prob.new_zeros(self.batch_size)
        q = self.label_site.distribution if LABEL in self.guide else self.source.classify(noise=True)
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
        return self._flat(self._expanded(integrand)).sum(0).mean(0)

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

    def latent(self, name: str) -> Site:
        """The guide's site. Raises ContractError, with the names that there are, for another name."""
        if name not in self.guide:
            raise ContractError(f"expected the name of a latent site, got {name!r}; this pair has {sorted(self.guide)}")
        return self.guide[name]

    def prior_drawn_before(self, name: str) -> bool:
        """Whether every latent before the site in the model was drawn before it by the guide as well."""
        model_latents = [site.name for site in self.model.values() if not site.observed]
        guide_latents = list(self.guide)
        before = set(guide_latents[: guide_latents.index(name)])
        return before.issuperset(model_latents[: model_latents.index(name)])

    def _expanded(self, total: Tensor) -> Tensor:
        return total.expand(*total.shape[:-2], self.num_particles, self.batch_size)

    def _flat(self, total: Tensor) -> Tensor:
        """(enumeration..., K, B) -> (product of enumeration, K, B)."""
        return total.reshape(-1, *total.shape[-2:])
