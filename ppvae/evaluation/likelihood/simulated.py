"""What can be known on data that the model itself drew, because one exact draw of the posterior comes with each.

(z*, x) ~ p(z) p(x | z) makes z* a draw of p(z | x).
"""

from dataclasses import dataclass

import pyro
import torch
from torch import Tensor

from ppvae.engine.checks import check_parameters, check_weights, to_device_of
from ppvae.engine.isolation import evaluation_mode
from ppvae.engine.pair import at_values, draw, require_can_score, simulate
from ppvae.errors import ContractError
from ppvae.evaluation.likelihood.importance import log_marginal
from ppvae.evaluation.likelihood.per_datum import sampling_error


@dataclass(frozen=True, eq=False)
class UpperBound:
    """An upper bound, in expectation, of log p(x) on simulated data; nats.

    Attributes:
        value: of each datum, shape (B,).
        lower: the importance-weighted lower bound of the same data, from the K - 1 draws of the guide, shape (B,).
        x: the simulated data, shape (B, *event_shape).
    """

    value: Tensor
    lower: Tensor
    x: Tensor

    @property
    def mean(self) -> float:
        return self.value.mean().item()

    @property
    def gap(self) -> float:
        """Mean of upper - lower, which bounds the mean error of either."""
        return (self.value - self.lower).mean().item()

    @property
    def gap_standard_error(self) -> float:
        """Of :attr:`gap`, over the data."""
        return sampling_error(self.value - self.lower)


def upper_bound(model, guide, like: Tensor, *, num_particles: int = 1000, seed: int = 0) -> UpperBound:
    """Bound log p(x) from above with one exact draw of the posterior among the particles.

        log p(x) <= E log 1/K (w(z*) + sum_{k=2}^K w(z_k)),   z* ~ p(z | x),  z_k ~ q(z | x),  w = p(x, z) / q(z | x)

    Args:
        model: generative model with continuous latents.
        guide: its guide, which must be able to score any value.
        like: a tensor of the shape and type of the data to be simulated; its values are not used.
        num_particles: K, at least 2.
        seed: of the simulation and the draws.

    Source: Grosse, Ghahramani and Adams 2015, "Sandwiching the Marginal Likelihood Using Bidirectional Monte Carlo".
    """
    if num_particles < 2:
        raise ValueError(f"expected num_particles of at least 2, got {num_particles}")
    check_parameters(model, guide)
    require_can_score(guide)
    like = to_device_of(model, like)
    with evaluation_mode(model, guide, device=like.device, seed=seed), pyro.validation_enabled(False):
        x, values = simulate(model, like)
        joint = at_values(model, x, None, values, 1)
        refuse_discrete(joint)
        log_q = sum(site.log_prob for site in at_values(guide, x, None, values, 1).values())
        exact = (sum(site.log_prob for site in joint.values()) - log_q)[0].double().cpu()
    check_weights(exact)
    others = log_marginal(model, guide, x, num_particles=num_particles - 1, seed=seed + 1, keep_weights=False)
    kept = torch.tensor(num_particles - 1.0, dtype=torch.float64).log()
    value = torch.logaddexp(exact, others.value + kept) - torch.tensor(float(num_particles)).double().log()
    return UpperBound(value, others.value, x)


@dataclass(frozen=True, eq=False)
class Calibration:
    """Ranks of the exact draw among a guide's draws.

    Attributes:
        ranks: by name of the site, shape (B, elements), each from 0 to ``draws``; uniform where q is the posterior.
        draws: L.
    """

    ranks: dict[str, Tensor]
    draws: int

    def p_value(self, name: str = "z", bins: int = 10) -> Tensor:
        """Of a chi-squared test that the ranks of each element are uniform, shape (elements,)."""
        from scipy.stats import chisquare

        if not 2 <= bins <= self.draws + 1:
            raise ValueError(f"expected bins from 2 to draws + 1 = {self.draws + 1}, got {bins}")
        ranks = self.ranks[name]
        edges = torch.linspace(0, self.draws + 1, bins + 1).round()  # bins of whole ranks
        expected = edges.diff() / (self.draws + 1) * len(ranks)
        counts = [torch.histogram(column.double(), edges.double() - 0.5).hist for column in ranks.T]
        return torch.tensor([chisquare(c.numpy(), expected.double().numpy()).pvalue for c in counts])


def calibration(model, guide, like: Tensor, *, draws: int = 99, seed: int = 0) -> Calibration:
    """Simulation-based calibration: where does the exact draw rank among the guide's, element by element?

    Ranks that crowd at both ends tell of a guide that is too narrow, in the middle of one too wide, at one end of
    one that is shifted.

    Args:
        model: generative model with continuous latents.
        guide: its guide.
        like: a tensor of the shape and type of the data to be simulated; its values are not used.
        draws: L.
        seed: of the simulation and the draws.

    Source: Talts et al. 2018, "Validating Bayesian Inference Algorithms with Simulation-Based Calibration".
    """
    if draws < 1:
        raise ValueError(f"expected draws of at least 1, got {draws}")
    check_parameters(model, guide)
    like = to_device_of(model, like)
    with evaluation_mode(model, guide, device=like.device, seed=seed), pyro.validation_enabled(False):
        x, values = simulate(model, like)
        refuse_discrete(at_values(model, x, None, values, 1))
        particles = draw(model, guide, x, num_particles=draws)
    check_weights(particles.log_weight)
    ranks = {
        name: (particles.guide[name].value < exact).sum(0).reshape(len(x), -1).cpu() for name, exact in values.items()
    }
    return Calibration(ranks, draws)


def refuse_discrete(sites: dict) -> None:
    discrete = [s.name for s in sites.values() if not s.observed and s.distribution.support.is_discrete]
    if discrete:
        raise ContractError(
            f"expected continuous latents, got the discrete site(s) {discrete}; give labels y where they "
            "are the labels, or use log_marginal, which sums them out"
        )
