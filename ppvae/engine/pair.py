"""Running a pair: the guide is traced once, the model is replayed once against it.

The model sees each draw of the guide through a gate: the same numbers, one step further along the graph. A gradient
that comes to a gate comes from the model's densities (and from :meth:`Source.score`), so that an estimator can
weigh it, particle by particle, before it goes on into the guide.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from pyro import poutine
from pyro.distributions.distribution import Distribution
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn
from torch.func import functional_call

from ppvae.engine.isolation import RandomState, evaluating, frozen, isolated
from ppvae.engine.particles import Particles, Site
from ppvae.engine.tracing import LABEL, OBSERVED, all_known, distribution_at, require_classes, trace, trace_enumerated
from ppvae.errors import ContractError


def draw(model, guide, x: Tensor, y: Tensor | None = None, num_particles: int = 1) -> Particles:
    """Trace the guide, replay the model against it, keep every density.

    Args:
        model: called ``model(x, y)``; see :mod:`ppvae.engine.contract`.
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
    return replace(particles, source=replace(particles.source, apart=True))


def replay(
    model, guide, x: Tensor, y: Tensor | None = None, num_particles: int = 1, step: int | None = None
) -> Particles:
    """:func:`draw` in the caller's parameter store, as a stock ``pyro.infer.SVI`` loop needs it."""
    if num_particles < 1:
        raise ValueError(f"expected num_particles of at least 1, got {num_particles}")
    source = Source(model, guide, x, y, num_particles, RandomState.of(x.device))
    guide_trace = trace_enumerated(guide, x, source.given, num_particles)
    try:
        guide_sites = source.label_known(sites_of(guide_trace))
    except NotImplementedError as error:
        raise ContractError(f"expected a guide of distributions that have a density, got {error}") from error
    gates = {name: site.value.view_as(site.value) for name, site in guide_sites.items() if not site.enumerated}
    for name, value in gates.items():
        guide_trace.nodes[name]["value"] = value
    model_trace = trace(poutine.replay(model, trace=guide_trace), x, source.given, num_particles)
    model_sites = sites_of(model_trace)
    require_same_latents({name for name, site in model_sites.items() if not site.observed}, set(guide_sites))
    return Particles(guide_sites, model_sites, num_particles, len(x), y, gates, source, step=step)


def require_same_latents(model: set[str], guide: set[str]) -> None:
    """Raise ContractError unless model and guide have latents of the same names.

    One that the model alone has, a discrete one that nobody sums for example, would be drawn from the prior and
    counted by its density: a number that is no weight.
    """
    if model - guide:
        raise ContractError(
            f"the guide misses latent site(s) {sorted(model - guide)} of the model; it draws {sorted(guide)}. "
            "Add a sample statement of that name to the guide"
        )
    if guide - model:
        raise ContractError(
            f"the guide invents site(s) {sorted(guide - model)} that the model does not have as latents; "
            f"the model's latents are {sorted(model)}. Remove or rename the guide's site"
        )


@dataclass(frozen=True)
class Source:
    """The pair, the data and the randomness that a replay came from, to run the guide again.

    Attributes:
        random_state: as it was before the guide was run.
        apart: whether the pair is run apart from the caller's parameter store.
    """

    model: nn.Module
    guide: nn.Module
    x: Tensor
    y: Tensor | None
    num_particles: int
    random_state: RandomState
    apart: bool = False

    @cached_property
    def given(self) -> Tensor | None:
        """The labels that model and guide are called with: all known, or None."""
        return self.y if self.y is not None and all_known(self.y) else None

    def classify(self, noise: bool) -> Distribution:
        """q(y | x), batch shape (B,); with noise=False in evaluation mode."""
        with self._store(), nullcontext() if noise else evaluating(self.guide):
            return distribution_at(self.guide, LABEL, self.x)

    def score(self, values: dict[str, Tensor], freeze: bool) -> dict[str, Site]:
        """The guide's sites at given values of those that it draws, under the same noise (dropout and the like).

        Args:
            values: by name of the site, shape (enumeration..., K, B, *event_shape).
            freeze: let no gradient into the guide's parameters.

        Raises ContractError for a guide that cannot score what it did not draw.
        """
        require_can_score(self.guide)
        without_gradient = frozen(self.guide) if freeze else nullcontext()
        with self._store(), without_gradient, self.random_state.replayed(), _At(values):
            try:
                sites = sites_of(trace_enumerated(self._guide_at_rest(), self.x, self.given, self.num_particles))
            except (NotImplementedError, KeyError) as error:  # a transform without an inverse
                raise ContractError(cannot_score(self.guide)) from error
        return self.label_known(sites)

    def draws_for(self, x: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        """One draw of each of the guide's latents for other data, (enumeration..., 1, B, *event), without gradient."""
        with torch.no_grad(), self._store():
            nodes = trace_enumerated(self._guide_at_rest(), x, y, 1).nodes
        return {name: nodes[name]["value"] for name in nodes if nodes[name]["type"] == "sample"}

    def sleep(self) -> Tensor:
        """log q(z | x), summed over all latents, of one draw (x, z) ~ p for each datum; shape (B,), in nats."""
        require_can_score(self.guide)
        with self._store():
            x, values = simulate(self.model, self.x)
            sites = at_values(self.guide, x, None, values, 1)
        return sum(site.log_prob for site in sites.values())[0]

    def label_known(self, guide_sites: dict[str, Site]) -> dict[str, Site]:
        """The guide's sites, its label with no density where the label is known: there it is an observation."""
        if self.y is None or LABEL not in guide_sites:
            return guide_sites
        if self.given is not None:
            raise ContractError(DRAWS_GIVEN_LABEL)
        site = guide_sites[LABEL]
        if not site.enumerated or site.distribution.event_shape:
            raise ContractError(
                f'expected site "{LABEL}" to be a Categorical class index, enumerated, for partly known labels; got '
                f"{site.distribution}; use Categorical (not OneHotCategorical)"
            )
        require_classes(self.y, len(site.value))
        return {**guide_sites, LABEL: replace(site, log_prob=torch.where(self.y >= 0, 0.0, site.log_prob))}

    def _guide_at_rest(self) -> Callable:
        """The guide with statistics (of batch normalisation, say) that move once a step and not once a run of it."""
        statistics = {name: buffer.clone() for name, buffer in self.guide.named_buffers()}
        return lambda x, y: functional_call(self.guide, statistics, (x, y))

    def _store(self):
        return isolated(self.model, self.guide) if self.apart else nullcontext()


def simulate(model, like: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Draw (x, z) ~ p(x, z), without gradient: x of the shape of ``like``, latents by name, each (1, B, ...)."""
    with torch.no_grad(), evaluating(model):
        sites = sites_of(trace(poutine.uncondition(model), like, None, 1))
    values = {name: site.value for name, site in sites.items()}
    return values.pop(OBSERVED).expand(1, *like.shape)[0].to(like.dtype), values


def require_can_score(guide) -> None:
    """Raise ContractError if the guide says that it cannot score a value that it did not draw."""
    if not getattr(guide, "can_score", True):
        raise ContractError(cannot_score(guide))


def cannot_score(guide) -> str:
    return (
        f"expected a guide that can score values which it did not draw, got {type(guide).__name__}, whose transform "
        "has no inverse; use a guide with can_score, or an objective that scores the guide's own draws alone: ELBO, "
        "IWAE, Renyi"
    )


def at_values(fn, x: Tensor, y: Tensor | None, values: dict[str, Tensor], num_particles: int) -> dict[str, Site]:
    """The sites of a model, or of a guide that can score, at given values (K, B, ...) of its latents."""
    with _At(values, draw=False):
        return sites_of(trace(fn, x, y, num_particles))


class _At(Messenger):
    """Sites take given values.

    Args:
        draw: draw each site all the same, so that random numbers are used up as they were before.
    """

    def __init__(self, values: dict[str, Tensor], draw: bool = True):
        super().__init__()
        self.values, self.draw = values, draw

    def _pyro_sample(self, msg) -> None:
        if msg["name"] in self.values and not msg["is_observed"]:
            if self.draw:
                with torch.no_grad():
                    msg["fn"]()
            msg["value"], msg["done"] = self.values[msg["name"]], True


def sites_of(trace) -> dict[str, Site]:
    """The sample statements of a Pyro trace, scored."""
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
    try:
        log_prob = node["fn"].log_prob(node["value"])
    except NotImplementedError as error:
        raise NotImplementedError(f"{type(node['fn']).__name__} at site {name!r}, which has no log_prob") from error
    mask = node["mask"]
    if mask is None:
        return log_prob
    if "_enumerate_dim" in node["infer"]:
        raise ContractError(
            f"expected the enumerated site {name!r} without a mask, got one: a masked row would count every value "
            "once. Leave the mask to the sites that depend on it"
        )
    return torch.where(torch.as_tensor(mask), log_prob, 0.0)


DRAWS_GIVEN_LABEL = (
    f'expected the guide not to draw site "{LABEL}" when labels are given, but it does; '
    f'write `if y is None: y = pyro.sample("{LABEL}", ...)`'
)
