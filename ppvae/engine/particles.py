"""One replay of a pair: the densities that every objective and estimator is a function of.

Each site has a distribution, a value and a log density of shape ``(enumeration..., K, B)``: K particles, B data, and
one further dimension on the left for each enumerated discrete site. :func:`ppvae.draw` makes particles.
"""

import functools
import operator
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal

from ppvae.distributions.kl import closed_form_kl
from ppvae.engine.batch import Batch
from ppvae.engine.sites import Site
from ppvae.engine.supports import require_density
from ppvae.errors import ContractError

Draws = dict[str, Tensor]
WITHOUT_ENUMERATION = 2  # dimensions of a log density: particles, data


class Source(Protocol):
    """The pair and the batch that particles come from, to run either again.

    Example:

        >>> import torch
        >>> from ppvae.engine.pair import Pair
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> pair = Pair(LinearGaussian(torch.eye(2), torch.zeros(2)), MeanFieldGaussian(torch.nn.Linear(2, 4)))
        >>> source = pair.draw(Batch(torch.zeros(3, 2))).source
        >>> source.model is pair.model, source.batch.x.shape
        (True, torch.Size([3, 2]))
    """

    @property
    def batch(self) -> Batch:
        """The data, labels and conditions."""

    @property
    def model(self) -> Any:
        """The generative model."""

    @property
    def waits(self) -> bool:
        """Whether checks may read numbers from the device."""

    def replay_model(self, draws: Draws, guide: dict[str, Site]) -> dict[str, Site]:
        """The model's sites at the guide's draws."""

    def score_guide(self, draws: Draws, freeze: bool) -> dict[str, Site]:
        """The guide's sites at given draws, under the same noise; ``freeze`` keeps gradients from its parameters."""

    def classify(self, site: str, noise: bool, batch: Batch | None = None, freeze: bool = False) -> TorchDistribution:
        """q(site | x), batch shape (B,); without noise in evaluation mode.

        ``batch`` has other data than the particles'. ``freeze`` keeps gradients from the guide's parameters.
        """

    def posterior(self, site: str, batch: Batch) -> TorchDistribution:
        """q(site | x) of other data with their labels and conditions, batch shape (B,), with gradient."""

    def generate(self, site: str) -> dict[str, Site]:
        """The model's sites at one draw of all latents from the prior for each datum, (1, B), with gradient."""

    def prior(self) -> dict[str, Site]:
        """The model's sites at one draw of all latents from the prior for each datum with its labels, (1, B)."""

    def score_simulated(self) -> dict[str, Site]:
        """The guide's sites at one draw (x, z) ~ p for each datum, (1, B)."""

    def draws_for(self, batch: Batch) -> Draws:
        """One draw of each of the guide's latents, discrete ones too, (1, B, *event), of another batch, no gradient."""


@dataclass(frozen=True, eq=False)
class Particles:
    """K weighted draws of the latent variables of each of B data.

    Readers never change particles. Log densities are computed when they are read.

    Attributes:
        guide: the guide's sites by name, in the order in which they were drawn.
        num_particles: K.
        source: the pair and the batch that they come from.
        draws: the drawn values by name; the model runs at these values.
        step: of the training that they are for, if any.

    Example:

        >>> import torch
        >>> import ppvae
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> model = LinearGaussian(torch.eye(2), torch.zeros(2))
        >>> guide = MeanFieldGaussian(ppvae.nn.MLP(2, [], 4))
        >>> particles = ppvae.draw(model, guide, torch.zeros(3, 2), num_particles=5)
        >>> particles.log_weight.shape, list(particles.model)
        (torch.Size([5, 3]), ['z', 'x'])
    """

    guide: dict[str, Site]
    num_particles: int
    source: Source
    draws: Draws
    step: int | None = None
    with_gradient: bool = True

    @property
    def batch(self) -> Batch:
        """The data, labels and conditions."""
        return self.source.batch

    @property
    def batch_size(self) -> int:
        """B."""
        return len(self.batch)

    @cached_property
    def model(self) -> dict[str, Site]:
        """The model's sites by name, in the order in which they were scored. The model runs at the first read."""
        with torch.set_grad_enabled(self.with_gradient):
            return self.source.replay_model(self.draws, self.guide)

    def rescored(self, draws: Draws, freeze: bool) -> "Particles":
        """Particles of a replay of their own: the guide scores ``draws`` again, and the model runs at them.

        Args:
            draws: the same numbers as :attr:`draws`, detached or with another path of the gradient.
            freeze: let no gradient into the guide's parameters.
        """
        return replace(self, guide=self.source.score_guide(draws, freeze), draws=draws)

    @cached_property
    def log_weight(self) -> Tensor:
        """log w_k = log sum_e p(x, z_k, e) / q(z_k | x, e), shape (K, B), in nats.

        The sum runs over every joint value e of the enumerated sites; where the label is known, over its own class
        alone. exp(log_weight) is an unbiased estimate of p(x), or of p(x, y) where y is known.

        Raises:
            ContractError: q is not a density over the prior's whole space.
        """
        return self.joint_log_weight.reshape(-1, self.num_particles, self.batch_size).logsumexp(0)

    @cached_property
    def joint_log_weight(self) -> Tensor:
        """log p(x, z_k, e) / q(z_k | x, e), shape (enumeration..., K, B), in nats; -inf in wrong classes."""
        self.require_weights()
        total = add_up(site.log_prob for site in self.model.values())
        for site in self.guide.values():
            total = total if site.enumerated else total - site.log_prob
        for admissible in self._admissible:
            total = total.masked_fill(~admissible, -torch.inf)
        return self._expanded(total)

    def require_weights(self) -> None:
        """Raise ContractError unless p / q exists at every site; see :mod:`ppvae.engine.supports`.

        Bounds that are tensors are compared too, except on the path of a training step.
        """
        for name in self.guide:
            self.require_weight(name)

    def require_weight(self, name: str) -> None:
        """:meth:`require_weights` of one site."""
        q, p = self.guide[name], self.model[name]
        require_density(name, q.distribution, p.distribution, read_tensors=self.source.waits)
        if not _same_mask(q.mask, p.mask, self.source.waits):
            raise ContractError(
                f"expected the same mask over site {name!r} in model and guide, got {q.mask!r:.60} in the guide and "
                f"{p.mask!r:.60} in the model: a density that only one of them counts makes no weight. Mask both, or "
                "neither"
            )

    def kl(self, name: str, analytic: bool = True) -> Tensor:
        """E_q KL(q(name | ...) || p(name | ...)), shape (B,), in nats.

        The closed form is used where one exists, the site has no mask, and every latent that precedes the site in
        the model also precedes it in the guide. Otherwise it is log q - log p at the draws,
        which has the same mean. (A closed form with a prior that depends on a latent drawn *later* is biased: that
        later draw is not independent of the site.)
        """
        return self.average(self.kl_integrand(name, analytic))

    def kl_integrand(self, name: str, analytic: bool = True) -> Tensor:
        """What :meth:`kl` averages over particles and enumeration, shape (enumeration..., K, B)."""
        q, p = self.latent(name), self.model[name]
        self.require_weight(name)
        closed = self._closed_form_kl(q, p) if analytic else None
        if closed is not None and _is_trusted(q.distribution) and _is_trusted(p.distribution):
            return closed
        sampled = q.log_q - p.log_prob if q.known is None else torch.where(q.known, 0.0, q.log_prob - p.log_prob)
        if closed is None:
            return sampled
        return torch.where(closed.isfinite() | ~sampled.isfinite(), closed, sampled)

    def _closed_form_kl(self, q: Site, p: Site) -> Tensor | None:
        if q.enumerated or q.mask is not None or p.mask is not None or not self.prior_drawn_before(q.name):
            return None
        return closed_form_kl(q.distribution, p.distribution)

    def require_reparameterised(self) -> None:
        """Raise ContractError if the draws of a trainable guide pass no gradient to its parameters."""
        for site in self.guide.values():
            if site.enumerated or site.distribution.has_rsample or not _is_learned(site):
                continue
            raise ContractError(
                f"expected reparameterised draws (rsample) of site {site.name!r}, got {site.distribution}, which has "
                "none; use ReweightedWakeSleep or ForwardKL, or Pyro's Trace_ELBO in fit"
            )

    @property
    def log_likelihood(self) -> Tensor:
        """Sum of the log densities of all data, known labels included, shape (enumeration..., K, B), in nats."""
        return add_up(self.log_likelihoods.values())

    @property
    def log_likelihoods(self) -> dict[str, Tensor]:
        """The log densities of the data by site; of a label that is known in some rows, 0 in the others."""
        sites = self.model.values()
        known = {site.name: torch.where(site.known, site.log_prob, 0.0) for site in sites if site.known is not None}
        return {site.name: site.log_prob for site in sites if site.observed} | known

    def average(self, integrand: Tensor) -> Tensor:
        """Mean over particles, expectation over enumerated sites: (enumeration..., K, B) -> (B,)."""
        weight = self._enumeration_weight
        if weight is not None:  # 0 * inf is 0: values that q rules out have no part in its expectation
            integrand = weight * integrand.masked_fill(weight == 0, 0.0)
        return self._expanded(integrand).reshape(-1, self.num_particles, self.batch_size).sum(0).mean(0)

    @cached_property
    def _enumeration_weight(self) -> Tensor | None:
        """q of each joint value of the enumerated sites, shape (enumeration..., K or 1, B); one-hot where known."""
        enumerated = [site for site in self.guide.values() if site.enumerated]
        if not enumerated:
            return None
        weight = add_up(site.log_q for site in enumerated).exp()
        for admissible in self._admissible:
            weight = weight * admissible
        return weight

    @cached_property
    def _admissible(self) -> list[Tensor]:
        """For each site with known rows, which enumerated values agree with the data: all, where it is unknown."""
        return [(site.value == site.data) | ~site.known for site in self.guide.values() if site.known is not None]

    def latent(self, name: str) -> Site:
        """The guide's site. Raises ContractError, with the names of the latents, for another name."""
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
        return total.expand(*total.shape[:-WITHOUT_ENUMERATION], self.num_particles, self.batch_size)


def add_up(terms: Iterable[Tensor]) -> Tensor:
    """The sum of at least one tensor, of shapes that broadcast.

    Example:

        >>> import torch
        >>> add_up([torch.ones(2, 1), torch.ones(3)]).shape
        torch.Size([2, 3])
    """
    return functools.reduce(operator.add, terms)


def _same_mask(ours: Any, theirs: Any, waits: bool) -> bool:
    if ours is None or theirs is None or ours is theirs:
        return ours is theirs
    return not waits or bool((torch.as_tensor(ours) == torch.as_tensor(theirs)).all())


def _is_trusted(fn: Any) -> bool:
    """Whether the closed forms of a family are finite and right whatever the parameters."""
    while isinstance(fn, Independent):
        fn = fn.base_dist
    return isinstance(fn, Normal | MultivariateNormal)


def _is_learned(site: Site) -> bool:
    """Whether the distribution of a site without reparameterised draws depends on something with a gradient."""
    return site.log_prob.requires_grad
