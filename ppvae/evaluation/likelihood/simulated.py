"""Upper bound and calibration on simulated data, where an exact posterior draw comes with each datum.

For (z*, x) ~ p(z) p(x | z), z* is a draw of p(z | x).
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ppvae.engine.batch import Array, Batch, HasBatch
from ppvae.engine.data_checks import check_weights
from ppvae.engine.evaluation import evaluation
from ppvae.engine.pair import Pair
from ppvae.engine.particles import Draws, add_up
from ppvae.engine.requirements import require_can_score
from ppvae.engine.sites import Site
from ppvae.errors import ContractError
from ppvae.evaluation.likelihood.importance import log_marginal
from ppvae.evaluation.likelihood.per_datum import sampling_error
from ppvae.evaluation.requirements import require_continuous, require_weights
from ppvae.objectives.base import require_count


@dataclass(frozen=True, eq=False)
class UpperBound:
    """An upper bound, in expectation, of log p(x) on simulated data; in nats.

    Attributes:
        value: of each datum, shape (B,).
        lower: the importance-weighted lower bound of the same data, from the K - 1 draws of the guide, shape (B,).
        x: the simulated data, shape (B, *event_shape). Evaluate them by another seed than the one of the simulation:
            with the same one, draws of the guide repeat its random numbers.

    Example:

        >>> found = UpperBound(value=torch.tensor([-1.0, -2.0]), lower=torch.tensor([-1.5, -2.5]), x=torch.zeros(2, 5))
        >>> found.mean, found.gap
        (-1.5, 0.5)
    """

    value: Tensor
    lower: Tensor
    x: Tensor

    @property
    def mean(self) -> float:
        """Mean of the upper bound over the data."""
        return self.value.mean().item()

    @property
    def gap(self) -> float:
        """Mean of upper - lower, which bounds the mean error of either."""
        return (self.value - self.lower).mean().item()

    @property
    def gap_standard_error(self) -> float:
        """Standard error of :attr:`gap` over the data."""
        return sampling_error(self.value - self.lower)

    def __repr__(self) -> str:
        return (
            f"UpperBound(upper {self.mean:.3f}, lower {self.lower.mean():.3f}, gap {self.gap:.3f} +- "
            f"{self.gap_standard_error:.3f} nats over {len(self.x)} data)"
        )


def upper_bound(
    model: Any,
    guide: Any,
    template: Batch | HasBatch | Array,
    y: Array | None = None,
    *,
    num_particles: int = 1000,
    seed: int = 0,
    **given: Array,
) -> UpperBound:
    """Bound log p(x) from above with one exact draw of the posterior among the particles.

        log p(x) <= E log 1/K (w(z*) + sum_{k=2}^K w(z_k)),   z* ~ p(z | x),  z_k ~ q(z | x),  w = p(x, z) / q(z | x)

    Args:
        model: generative model with continuous latents.
        guide: its guide, which must be able to score any value.
        template: data of the shape (B, *event_shape) and type of those to be simulated; their values are not read.
            Labels and conditions given with them are kept.
        y: labels of the data to be simulated, all known, shape (B,); or None.
        num_particles: K, at least 2.
        seed: of the simulation and the draws.
        given: conditions of B rows each.

    Raises:
        ContractError: the pair breaks the contract; a latent is discrete; the guide cannot score, or is no density over
            the prior's whole space; the model observes anything other than x and labels.

    Source: Grosse, Ghahramani and Adams 2015, "Sandwiching the Marginal Likelihood Using Bidirectional Monte Carlo".

    Example:

        >>> import ppvae
        >>> from ppvae.guides import FullRankGaussian
        >>> from ppvae.models import LinearGaussian
        >>> model = LinearGaussian(torch.eye(2), torch.zeros(2))
        >>> guide = FullRankGaussian(ppvae.nn.MLP(2, [], 5), 2)
        >>> found = ppvae.upper_bound(model, guide, torch.zeros(100, 2), num_particles=10)
        >>> found.mean > model.log_evidence(found.x).mean() > found.lower.mean()
        tensor(True)
    """
    if require_count("num_particles", num_particles) < 2:
        raise ValueError(f"expected num_particles of at least 2, got {num_particles}")
    with evaluation(model, guide, template, y, given, seed=seed, simulate=True) as (pair, batch):
        require_can_score(guide)
        batch, values = _simulated(pair, batch)
        joint, posterior = pair.model_at(batch, values, 1), pair.guide_at(batch, values, 1)
        exact = (_log_density(joint) - _log_density(posterior))[0].cpu()
    check_weights(exact)
    others = log_marginal(
        model, guide, batch, proposal=None, num_particles=num_particles - 1, seed=seed + 1, keep_weights=False
    ).value
    value = torch.logaddexp(exact, others + math.log(num_particles - 1)) - math.log(num_particles)
    return UpperBound(value, others, batch.x)


@dataclass(frozen=True, eq=False)
class Calibration:
    """Ranks of the exact draw among a guide's draws; made by :func:`calibration`.

    Attributes:
        ranks: by name of the site, shape (B, elements), each from 0 to ``num_particles``; uniform where q is the
            posterior.
        num_particles: K, draws of the guide.

    Example:

        >>> uniform = Calibration({"z": torch.arange(100).unsqueeze(-1) % 10}, num_particles=9)
        >>> uniform.p_value("z") > 0.9
        tensor([True])
    """

    ranks: dict[str, Tensor]
    num_particles: int

    def p_value(self, name: str = "z", bins: int = 10) -> Tensor:
        """Of a chi-squared test that the ranks of each element are uniform, shape (elements,).

        Raises ContractError if ``name`` is not a latent, ValueError unless ``bins`` is from 2 to K + 1.
        """
        from scipy.stats import chisquare

        if name not in self.ranks:
            raise ContractError(f"expected the name of a latent site, got {name!r}; this pair has {sorted(self.ranks)}")
        if not 2 <= bins <= self.num_particles + 1:
            raise ValueError(f"expected bins from 2 to num_particles + 1 = {self.num_particles + 1}, got {bins}")
        ranks = self.ranks[name]
        edges = torch.linspace(0, self.num_particles + 1, bins + 1).round()  # bins of whole ranks
        expected = edges.diff() / (self.num_particles + 1) * len(ranks)
        counts = [torch.histogram(column.double(), edges.double() - 0.5).hist for column in ranks.T]
        return torch.tensor([chisquare(c.numpy(), expected.double().numpy()).pvalue for c in counts])

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name}: {tuple(ranks.shape)}" for name, ranks in self.ranks.items())
        return f"Calibration(ranks {{{shapes}}} among {self.num_particles} draws)"


def calibration(
    model: Any,
    guide: Any,
    template: Batch | HasBatch | Array,
    y: Array | None = None,
    *,
    num_particles: int = 99,
    seed: int = 0,
    **given: Array,
) -> Calibration:
    """Simulation-based calibration: the rank of an exact posterior draw among the guide's draws, element by element.

    U-shaped ranks: the guide is too narrow; hump-shaped: too wide; skewed: biased.

    Args:
        model: generative model with continuous latents.
        guide: its guide.
        template: data of the shape (B, *event_shape) and type of those to be simulated; their values are not read.
            Labels and conditions given with them are kept.
        y: labels of the data to be simulated, all known, shape (B,); or None.
        num_particles: K, draws of the guide for each datum.
        seed: of the simulation and the draws.
        given: conditions of B rows each.

    Raises:
        ContractError: the pair breaks the contract; a latent is discrete; the guide is no density over the prior's
            whole space; the model observes anything other than x and labels.

    Source: Talts et al. 2018, "Validating Bayesian Inference Algorithms with Simulation-Based Calibration".

    Example:

        >>> import ppvae
        >>> from ppvae.guides import FullRankGaussian
        >>> from ppvae.models import LinearGaussian
        >>> model = LinearGaussian(torch.eye(2), torch.zeros(2))
        >>> guide = FullRankGaussian(ppvae.nn.MLP(2, [], 5), 2)
        >>> ppvae.calibration(model, guide, torch.zeros(100, 2), num_particles=19)
        Calibration(ranks {z: (100, 2)} among 19 draws)
    """
    num_particles = require_count("num_particles", num_particles)
    with evaluation(model, guide, template, y, given, seed=seed, simulate=True) as (pair, batch):
        batch, values = _simulated(pair, batch)
        particles = pair.draw(batch, num_particles)
        check_weights(particles.log_weight)
        ranks = {name: (particles.guide[name].value < exact).sum(0) for name, exact in values.items()}
    return Calibration({name: rank.reshape(len(batch), -1).cpu() for name, rank in ranks.items()}, num_particles)


def _log_density(sites: dict[str, Site]) -> Tensor:
    """The sum of all log densities, (1, B), in float64."""
    return add_up(site.log_prob.double() for site in sites.values())


def _simulated(pair: Pair, batch: Batch) -> tuple[Batch, Draws]:
    """Data drawn from the model, and an exact posterior draw of its continuous latents."""
    drawn, values = pair.simulate(batch)
    require_continuous(pair.model_at(drawn, values, 1))
    require_weights(pair, drawn)
    return drawn, values
