"""The pair: the model and the guide, and the only place where either is run."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from ppvae.distributions.implicit import has_density
from ppvae.engine.batch import Array, Batch, HasBatch, as_batch
from ppvae.engine.data_checks import check_event_shape
from ppvae.engine.isolation import evaluating, frozen, isolated, with_own_statistics
from ppvae.engine.noise import Noise
from ppvae.engine.particles import Draws, Particles
from ppvae.engine.requirements import (
    DRAWS_GIVEN_LABEL,
    require_can_score,
    require_enumerated_classes,
    require_likelihood,
    require_no_other_data,
    require_same_latents,
    require_some_latents,
)
from ppvae.engine.sites import Site, scored, sites_of
from ppvae.engine.supports import require_density
from ppvae.engine.tracing import (
    LABEL,
    OBSERVED,
    At,
    Unobserve,
    arguments,
    distribution_at,
    sample_nodes,
    trace,
    trace_enumerated,
)
from ppvae.errors import ContractError, require_count


def draw(
    model: Any,
    guide: Any,
    data: Batch | HasBatch | Array,
    y: Array | None = None,
    num_particles: int = 1,
    **given: Array,
) -> Particles:
    """Trace the guide, replay the model against it, and keep every density.

    Args:
        model: called ``model(x, y, **given)``; see :mod:`ppvae.engine.contract`.
        guide: called ``guide(x, y, **given)``.
        data: a ``Dataset``, a tensor or a numpy array of shape (B, *event_shape).
        y: labels of shape (B,), -1 where unknown. If some but not all rows are labelled, model and guide are called
            without labels, every class is enumerated, and each labelled row is restricted to its own class.
        num_particles: draws of the latents per datum, K.
        given: conditions of B rows each.

    Neither the global parameter store nor any parameter's name is touched.

    Example:

        >>> import torch
        >>> import ppvae
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> model = LinearGaussian(torch.eye(2), torch.zeros(2))
        >>> guide = MeanFieldGaussian(ppvae.nn.MLP(2, [], 4))
        >>> ppvae.draw(model, guide, torch.zeros(3, 2), num_particles=5).log_weight.shape
        torch.Size([5, 3])
    """
    pair = Pair(model, guide, apart=True)
    with isolated():
        particles = pair.draw(as_batch(data, y, given, dtype_of(model, guide)), num_particles, record=True)
        _ = particles.model  # run at once, with the current parameters and mode
    return particles


@dataclass(frozen=True, eq=False)
class Simulation:
    """One draw (x, z) ~ p(x, z) for each of B data.

    Attributes:
        batch: the drawn x, with the conditions of the data, and their labels unless labels were drawn.
        latents: the model's sites of what it draws besides x, (1, B).
        implicit: whether p(x | z) has no density.

    Example:

        >>> from ppvae.models import LinearGaussian
        >>> pair = Pair(LinearGaussian(torch.eye(2), torch.zeros(2)), None)
        >>> pair.simulation(as_batch(torch.zeros(3, 2))).latents["z"].value.shape
        torch.Size([1, 3, 2])
    """

    batch: Batch
    latents: dict[str, Site]
    implicit: bool


@dataclass(frozen=True, eq=False)
class Pair:
    """A generative model and its guide.

    Args:
        model: called ``model(x, y, **given)``.
        guide: called ``guide(x, y, **given)``.
        apart: run the pair apart from the caller's parameter store, whenever its particles are read.
        waits: checks may read numbers from the device; False on the path of a training step.

    Example:

        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> pair = Pair(LinearGaussian(torch.eye(2), torch.zeros(2)), MeanFieldGaussian(nn.Linear(2, 4)))
        >>> batch, latents = pair.simulate(as_batch(torch.zeros(3, 2)))
        >>> batch.x.shape, latents["z"].shape
        (torch.Size([3, 2]), torch.Size([1, 3, 2]))
    """

    model: Any
    guide: Any
    apart: bool = False
    waits: bool = True

    def draw(self, batch: Batch, num_particles: int = 1, record: bool = False, step: int | None = None) -> Particles:
        """Particles of one run of the guide, in the current parameter store; the model runs when it is read.

        Args:
            batch: B data.
            num_particles: K.
            record: keep the guide's noise, for estimators that score the draws again (``Particles.rescored``).
            step: of the training.
        """
        num_particles = require_count("num_particles", num_particles)
        source = Replay(self, batch, num_particles, Noise() if record else None)
        with nullcontext() if source.noise is None else source.noise.recorded():
            traced = trace_enumerated(self.guide, arguments(self.guide, batch), num_particles)
        sites = source.guide_sites(traced)
        draws = {name: site.value for name, site in sites.items() if not site.enumerated}
        return Particles(sites, num_particles, source, draws, step, torch.is_grad_enabled())

    def simulate(self, batch: Batch, draw_labels: bool = False) -> tuple[Batch, Draws]:
        """Draw (x, z) ~ p(x, z | labels, conditions), without gradient, with the model in evaluation mode.

        Args:
            batch: its labels and conditions are used, and the shape and type of its x.
            draw_labels: draw labels that are a site of the model instead, as a latent.

        Returns the batch with the drawn x, and the latents by name, each (1, B, *event_shape).

        Raises:
            ContractError: the model observes something else that may depend on a latent: draws from the prior are
                then no draws of the posterior.
        """
        found = self.simulation(batch, draw_labels)
        return found.batch, {name: site.value for name, site in found.latents.items()}

    def simulation(self, batch: Batch, draw_labels: bool = False, learning: bool = False) -> Simulation:
        """:meth:`simulate`, with the sites of the latents instead of their values.

        With ``learning`` the draws have a gradient, and the model runs in its present mode.

        Raises:
            ContractError: x is drawn in another shape than that of the data.
        """
        drawn = (OBSERVED, LABEL) if draw_labels else (OBSERVED,)
        with ExitStack() as modes:
            if not learning:
                modes.enter_context(torch.no_grad())
                modes.enter_context(evaluating(self.model))
            modes.enter_context(Unobserve(*drawn))
            traced = trace(self.model, arguments(self.model, batch), 1)
        sites = sites_of("model", traced, 1, len(batch))
        require_no_other_data({name: site.observed for name, site in sites.items()})
        latents = {name: site for name, site in sites.items() if not site.observed}
        of_x = latents.pop(OBSERVED)
        check_event_shape(of_x.distribution, batch.x)
        x = of_x.value.expand(1, *batch.x.shape)[0].to(batch.x.dtype)
        simulated = Batch(x, None, batch.given) if LABEL in latents else batch.with_x(x)
        return Simulation(simulated, latents, implicit=not has_density(of_x.distribution))

    def generated(self, batch: Batch) -> dict[str, Site]:
        """The model's sites at one draw of all its latents from the prior for each datum, (1, B), "x" at the data.

        Labels are drawn too. The model runs in evaluation mode, and every draw that is reparameterised has a gradient.
        """
        unlabelled = batch.unlabelled()
        with evaluating(self.model):
            traced = trace(with_own_statistics(self.model), arguments(self.model, unlabelled), 1)
        return sites_of("model", traced, 1, len(batch))

    def prior(self, batch: Batch, num_particles: int) -> dict[str, Site]:
        """The model's sites at latents drawn from the prior, "x" at the data."""
        return sites_of(
            "model", trace(self.model, arguments(self.model, batch), num_particles), num_particles, len(batch)
        )

    def model_at(self, batch: Batch, values: Draws, num_particles: int) -> dict[str, Site]:
        """The model's sites at given values (K, B, *event) of its latents."""
        with At(values):
            return self.prior(batch, num_particles)

    def guide_at(self, batch: Batch, values: Draws, num_particles: int) -> dict[str, Site]:
        """The sites of a guide that can score any value, at given values (K, B, *event) of its latents."""
        return scored(self.guide, self._guide_sites_at(batch, values, num_particles))

    def simulated_guide(self, batch: Batch) -> dict[str, Site]:
        """The guide's sites at one draw (x, z) ~ p for each datum, labels included, (1, B).

        Elements that are missing from the data (NaN) are missing from the drawn x as well.

        Raises:
            ContractError: q is not a density over the whole space of the prior.
        """
        found = self.simulation(batch, draw_labels=True)
        if found.batch.x.is_floating_point():
            x = found.batch.x.masked_fill(batch.x.isnan(), torch.nan)
            found = replace(found, batch=found.batch.with_x(x))
        return self.recognised(found)

    def recognised(self, found: Simulation) -> dict[str, Site]:
        """The guide's sites at the latents of a simulation, (1, B).

        Of an implicit model the guide may recognise some of the latents, such as the codes without the noise.

        Raises:
            ContractError: q is not a density over the whole space of the prior, or draws other latents.
        """
        latents = found.latents
        sites = self._guide_sites_at(found.batch, {name: site.value for name, site in latents.items()}, 1)
        require_latents = require_some_latents if found.implicit else require_same_latents
        require_latents(set(latents), set(sites))
        for name, site in sites.items():
            require_density(name, site.distribution, latents[name].distribution, read_tensors=self.waits)
        return scored(self.guide, sites)

    def _guide_sites_at(self, batch: Batch, values: Draws, num_particles: int) -> dict[str, Site]:
        require_can_score(self.guide)
        with At(values):
            traced = trace(self.guide, arguments(self.guide, batch), num_particles)
        return sites_of("guide", traced, num_particles, len(batch))

    def store(self) -> AbstractContextManager[None]:
        """The parameter store that the pair runs in."""
        return isolated() if self.apart else nullcontext()


@dataclass(frozen=True, eq=False)
class Replay:
    """The pair, the batch and the noise that particles come from; see :class:`ppvae.engine.particles.Source`.

    Example:

        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> pair = Pair(LinearGaussian(torch.eye(2), torch.zeros(2)), MeanFieldGaussian(nn.Linear(2, 4)))
        >>> source = pair.draw(as_batch(torch.zeros(3, 2))).source
        >>> source.draws_for(as_batch(torch.zeros(5, 2)))["z"].shape
        torch.Size([1, 5, 2])
    """

    pair: Pair
    batch: Batch
    num_particles: int
    noise: Noise | None = None
    ran: list[bool] = field(default_factory=list)  # whether the model ran: its batch statistics move once a step

    @property
    def model(self) -> Any:
        """The pair's model."""
        return self.pair.model

    @property
    def waits(self) -> bool:
        """Whether checks may read numbers from the device."""
        return self.pair.waits

    def replay_model(self, draws: Draws, guide: dict[str, Site]) -> dict[str, Site]:
        """The model's sites at the guide's draws and enumerated values.

        Raises:
            ContractError: the latents are others than the guide's, or p(x | z) has no density.
        """
        values = {name: site.value for name, site in guide.items()} | draws
        model = with_own_statistics(self.pair.model) if self.ran else self.pair.model
        self.ran.append(True)
        with self.pair.store(), At(values):
            traced = trace(model, arguments(self.pair.model, self.batch), self.num_particles)
        sites = sites_of("model", traced, self.num_particles, len(self.batch))
        if OBSERVED in sites:
            require_likelihood(self.model, sites[OBSERVED].distribution)
        require_same_latents({name for name, site in sites.items() if not site.observed}, set(guide))
        same = {name: replace(sites[name], enumerated=site.enumerated) for name, site in guide.items()}
        return {name: self._mark_known(same.get(name, site)) for name, site in sites.items()}

    def guide_sites(self, traced: poutine.Trace) -> dict[str, Site]:
        """The guide's sites, with known rows marked."""
        sites = sites_of("guide", traced, self.num_particles, len(self.batch))
        if LABEL in sites and self.batch.label is not None:
            raise ContractError(DRAWS_GIVEN_LABEL)
        if LABEL in sites and self.batch.y is not None:
            require_enumerated_classes(sites[LABEL].enumerated, sites[LABEL].distribution, self.batch.y)
        return {name: self._mark_known(site) for name, site in sites.items()}

    def _mark_known(self, site: Site) -> Site:
        if site.name != LABEL or site.observed or self.batch.y is None or self.batch.all_known:
            return site
        return replace(site, known=self.batch.known, data=self.batch.y)

    def score_guide(self, draws: Draws, freeze: bool) -> dict[str, Site]:
        """The guide's sites at given draws under the noise of the first run.

        Raises:
            ContractError: the guide cannot score what it did not draw, or its noise was not recorded.
        """
        guide = self.pair.guide
        require_can_score(guide)
        if self.noise is None:
            raise ContractError(
                "expected particles with recorded noise, to score the guide again; make them by ppvae.draw or by the "
                "objective's own particles(...)"
            )
        call = arguments(guide, self.batch)
        with self.pair.store(), self._held(freeze), self.noise.replayed(), At(draws, draw=True):
            traced = trace_enumerated(with_own_statistics(guide), call, self.num_particles)
            return scored(guide, self.guide_sites(traced))

    def classify(
        self,
        site: str,
        noise: bool,
        batch: Batch | None = None,
        freeze: bool = False,
        num_draws: int | None = None,
    ) -> TorchDistribution:
        """q(site | x), batch shape (B,); without noise in evaluation mode.

        Where the guide draws other latents before the site it is q(site | x, those), at one draw of them.

        Args:
            site: of the guide.
            noise: run the guide in its present mode.
            batch: other data than those of the particles.
            freeze: let no gradient into the guide's parameters.
            num_draws: of the latents before the site, for a batch shape (num_draws, B) where q depends on them.

        Raises:
            ContractError: the guide does not draw the site, or cannot be called without labels.
        """
        guide, unlabelled = self.pair.guide, (self.batch if batch is None else batch).unlabelled()
        with (
            self._called_without_labels("guide", site),
            self._held(freeze),
            nullcontext() if noise else evaluating(guide),
        ):
            return self._guide_at(site, unlabelled, num_draws)

    def posterior(self, site: str, batch: Batch) -> TorchDistribution:
        """q(site | x) of other data with their labels and conditions, batch shape (B,), in the guide's present mode.

        Raises:
            ContractError: the guide does not draw the site.
        """
        with self.pair.store():
            return self._guide_at(site, batch)

    def _guide_at(self, site: str, batch: Batch, num_draws: int | None = None) -> TorchDistribution:
        guide = self.pair.guide
        return distribution_at(with_own_statistics(guide), site, batch, arguments(guide, batch), num_draws)

    def generate(self, site: str) -> dict[str, Site]:
        """The model's sites at one draw from the prior for each datum, (1, B), in evaluation mode, with gradient.

        Raises:
            ContractError: the model does not draw the site, or cannot be called without labels.
        """
        with self._called_without_labels("model", site):
            sites = self.pair.generated(self.batch)
        if site not in sites or sites[site].observed:
            raise ContractError(
                f"expected a model that draws site {site!r} when it is called without labels, got a "
                f"{type(self.model).__name__} that draws {sorted(n for n, each in sites.items() if not each.observed)}"
            )
        return sites

    def prior(self) -> dict[str, Site]:
        """The model's sites at one draw of all latents from the prior for each datum, (1, B), with gradient.

        Known labels and conditions are given. The model runs in its present mode.
        """
        model = with_own_statistics(self.model)
        with self.pair.store():
            return sites_of("model", trace(model, arguments(self.model, self.batch), 1), 1, len(self.batch))

    @contextmanager
    def _called_without_labels(self, role: str, site: str) -> Iterator[None]:
        """In the pair's store; a failure on labelled data says that the model or the guide needs its labels."""
        try:
            with self.pair.store():
                yield
        except (ContractError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            if self.batch.label is None:
                raise
            raise ContractError(
                f"expected a {role} that draws site {site!r} when it is called without labels, got a "
                f"{type(getattr(self.pair, role)).__name__} that fails without them: {type(error).__name__}: {error}"
            ) from error

    def _held(self, freeze: bool) -> AbstractContextManager[None]:
        """The guide's parameters held fixed, or not."""
        guide = self.pair.guide
        if freeze and not isinstance(guide, nn.Module):
            raise ContractError(
                "expected the guide to be a PyroModule, so that its parameters can be held fixed while it is scored, "
                f"got a {type(guide).__name__}; make it a class with forward, derived from ppvae.Guide"
            )
        return frozen(guide) if freeze else nullcontext()

    def draws_for(self, batch: Batch) -> Draws:
        """One draw of each of the guide's latents, also of discrete ones, for another batch; see the protocol."""
        guide = self.pair.guide
        with torch.no_grad(), self.pair.store():
            nodes = sample_nodes(trace(with_own_statistics(guide), arguments(guide, batch), 1))
        return {name: node["value"] for name, node in nodes.items()}

    def score_simulated(self) -> dict[str, Site]:
        """The guide's sites at one draw (x, z) ~ p for each datum, (1, B)."""
        with self.pair.store():
            return self.pair.simulated_guide(self.batch)


def first_parameter(*modules: Any) -> Tensor | None:
    """The first floating parameter of some modules, which tells their device and type.

    Example:

        >>> first_parameter(nn.ReLU(), nn.Linear(2, 4)).shape
        torch.Size([4, 2])
    """
    for module in modules:
        if isinstance(module, nn.Module):
            for parameter in module.parameters():
                if parameter.is_floating_point():
                    return parameter
    return None


def dtype_of(*modules: Any) -> torch.dtype | None:
    """The floating type of some modules' parameters; None if there are none.

    Example:

        >>> dtype_of(nn.ReLU(), nn.Linear(2, 4).double())
        torch.float64
    """
    parameter = first_parameter(*modules)
    return None if parameter is None else parameter.dtype
