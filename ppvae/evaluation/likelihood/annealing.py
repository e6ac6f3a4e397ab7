"""Annealed importance sampling, and its two-sided form.

    f_b(z) = f_0(z)^(1 - b) p(x, z)^b,   b_0 = 0 < ... < b_T = 1,   f_0 = p(z) or q(z | x)

    z_0 ~ f_0;   for t = 1..T:  log w += (b_t - b_{t-1}) (log p(x, z) - log f_0(z)),  then one HMC transition on f_{b_t}

E[w] = p(x), so that log-mean-exp over chains is, in expectation, a lower bound of log p(x). Run backwards from an
exact draw of the posterior, which a model gives together with data of its own, it is an upper bound.

HMC moves in unconstrained coordinates. Its step sizes are adapted in a pilot run and then held fixed: a step size
that learns within the scored run would break the guarantee.

Source: Neal 2001, "Annealed Importance Sampling"; Grosse, Ghahramani and Adams 2015, "Sandwiching the Marginal
Likelihood Using Bidirectional Monte Carlo"; Wu et al. 2017, "On the Quantitative Analysis of Decoder-Based
Generative Models".
"""

import math
import warnings
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from ppvae.engine.batch import Array, Batch, HasBatch
from ppvae.engine.data_checks import check_weights
from ppvae.engine.evaluation import evaluation
from ppvae.engine.isolation import forked_randomness, frozen
from ppvae.evaluation.likelihood.annealed import AnnealedEstimate, BidirectionalEstimate
from ppvae.evaluation.likelihood.hmc import hmc_step
from ppvae.evaluation.likelihood.path import Path
from ppvae.evaluation.progress import tracked
from ppvae.objectives.base import require_count

TARGET_ACCEPTANCE = 0.65
PILOT_TEMPERATURES = 100
PILOT_GAIN = 0.75  # of the logarithm of the step size, for each transition
PILOT_TRANSITIONS = 3  # at each temperature of the pilot


@dataclass(frozen=True)
class Annealing:
    """Settings of annealed importance sampling.

    Args:
        temperatures: T, the number of transitions of the scored run.
        chains: independent chains for each datum.
        leapfrog_steps: of each transition.
        schedule: "sigmoid" (of radius 4: slow at both ends) or "linear".
        first_step_size: at which the pilot starts.

    Raises ValueError or TypeError for numbers below 1 or not whole, and another schedule.

    Example:

        >>> Annealing(temperatures=2, schedule="linear").betas(2)
        tensor([0.0000, 0.5000, 1.0000], dtype=torch.float64)
    """

    temperatures: int = 1000
    chains: int = 16
    leapfrog_steps: int = 10
    schedule: Literal["sigmoid", "linear"] = "sigmoid"
    first_step_size: float = 0.1

    def __post_init__(self) -> None:
        for name in ("temperatures", "chains", "leapfrog_steps"):
            require_count(name, getattr(self, name))
        if not self.first_step_size > 0:
            raise ValueError(f"expected first_step_size above 0, got {self.first_step_size}")
        if self.schedule not in ("sigmoid", "linear"):
            raise ValueError(f'expected schedule "sigmoid" or "linear", got {self.schedule!r}')

    def betas(self, steps: int) -> Tensor:
        """b_0 = 0 < ... < b_steps = 1, shape (steps + 1,)."""
        even = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        if self.schedule == "linear":
            return even
        sigmoid = (4 * (2 * even - 1)).sigmoid()
        return (sigmoid - sigmoid[0]) / (sigmoid[-1] - sigmoid[0])


DEFAULT = Annealing()


def ais(
    model: Any,
    data: Batch | HasBatch | Array,
    y: Array | None = None,
    *,
    guide: Any = None,
    annealing: Annealing = DEFAULT,
    seed: int = 0,
    progress: bool = False,
    **given: Array,
) -> AnnealedEstimate:
    """Estimate log p(x) of each datum (log p(x, y) where labels are given) by annealed importance sampling.

    Args:
        model: generative model with continuous latents.
        data: a ``Dataset``, a tensor or a numpy array of shape (B, *event_shape).
        y: labels, all known, shape (B,); or None.
        guide: where to start from, in place of the prior; it must be able to score any value.
        annealing: temperatures, chains, leapfrog steps, schedule.
        seed: of the whole run; the caller's random state does not change.
        progress: show progress bars.
        given: conditions of B rows each.

    Warns, with its row, of a datum where no chain ever moved: its estimate is plain importance sampling.

    Raises:
        ContractError: the pair or the data break the contract; a latent is discrete, or has a support that depends on
            another latent; labels are known in part; q is not a density over the prior's whole space.

    Example:

        >>> import ppvae
        >>> from ppvae.models import LinearGaussian
        >>> model = LinearGaussian(torch.eye(2), torch.zeros(2))
        >>> ppvae.ais(model, torch.zeros(3, 2), annealing=Annealing(temperatures=5, chains=2)).log_weight.shape
        torch.Size([2, 3])
    """
    with evaluation(model, guide, data, y, given, seed=seed) as (pair, batch), frozen(model):
        path = Path(pair, batch, annealing.chains)
        run = _Run(path, annealing, _pilot(path, annealing, progress), progress)
        return run.forward(path.start(), "AIS")


def bdmc(
    model: Any,
    template: Batch | HasBatch | Array,
    y: Array | None = None,
    *,
    guide: Any = None,
    annealing: Annealing = DEFAULT,
    seed: int = 0,
    progress: bool = False,
    **given: Array,
) -> BidirectionalEstimate:
    """Bound log p(x) from both sides on simulated data: the gap bounds the error of :func:`ais` with these settings.

    Args:
        model: generative model with continuous latents.
        template: data of the shape (B, *event_shape) and type of those to be simulated; their values are not read.
            Labels and conditions given with them are kept.
        y: labels of the data to be simulated, all known, shape (B,); or None.
        guide, annealing, seed, progress, given: see :func:`ais`.

    Raises:
        ContractError: see :func:`ais`; or the model observes anything other than x and labels.

    Example:

        >>> import ppvae
        >>> from ppvae.models import LinearGaussian
        >>> model = LinearGaussian(torch.eye(2), torch.zeros(2))
        >>> both = ppvae.bdmc(model, torch.zeros(20, 2), annealing=Annealing(temperatures=5, chains=2))
        >>> both.x.shape, both.gap > 0
        (torch.Size([20, 2]), True)
    """
    with evaluation(model, guide, template, y, given, seed=seed, simulate=True) as (pair, batch), frozen(model):
        batch, values = pair.simulate(batch)
        with forked_randomness(batch.x.device, seed + 1):
            path = Path(pair, batch, annealing.chains)
            run = _Run(path, annealing, _pilot(path, annealing, progress), progress)
            lower = run.forward(path.start(), "forward")
            exact = {name: value.expand(annealing.chains, *value.shape[1:]) for name, value in values.items()}
            upper = run.backward(path.coordinates.unconstrained(exact), "backward")
    return BidirectionalEstimate(lower, upper, batch.x)


def _pilot(path: Path, annealing: Annealing, progress: bool) -> Tensor:
    """Step sizes at each of the T temperatures for each datum, (T, B), that accept about 65%."""
    coarse = annealing.betas(min(PILOT_TEMPERATURES, annealing.temperatures))[1:]
    u = path.start()
    size = torch.full(u.shape[1:2], annealing.first_step_size, dtype=u.dtype, device=u.device)
    found = []
    for beta in tracked(coarse.tolist(), "pilot", progress):
        for _ in range(PILOT_TRANSITIONS):
            u, accepted = hmc_step(path.log_density(beta), u, size, annealing.leapfrog_steps)
            size = size * (PILOT_GAIN * (accepted.to(size.dtype).mean(0) - TARGET_ACCEPTANCE)).exp()
        found.append(size)
    nearest = torch.bucketize(annealing.betas(annealing.temperatures)[1:], coarse).clamp(max=len(coarse) - 1)
    return torch.stack(found)[nearest.to(u.device)]


@dataclass(frozen=True)
class _Run:
    """Scored runs along a path, with step sizes (T, B) that a pilot found."""

    path: Path
    annealing: Annealing
    sizes: Tensor
    progress: bool

    def forward(self, u: Tensor, title: str) -> AnnealedEstimate:
        """log E[w] of chains that start from draws u of f_0."""
        log_weight, accepted = self._weigh(u, range(self.annealing.temperatures + 1), title)
        return AnnealedEstimate(*_mean_and_error(log_weight), log_weight, accepted)

    def backward(self, u: Tensor, title: str) -> AnnealedEstimate:
        """- log E[w] of chains that start from exact draws u of the posterior: E[w] is 1 / p(x)."""
        log_weight, accepted = self._weigh(u, range(self.annealing.temperatures, -1, -1), title)
        total, error = _mean_and_error(log_weight)
        return AnnealedEstimate(-total, torch.full_like(error, torch.nan), -log_weight, accepted)

    def _weigh(self, u: Tensor, order: range, title: str) -> tuple[Tensor, Tensor]:
        """Log weights (chains, B), and the share of transitions that were accepted, (B,); on the CPU."""
        betas, steps = self.annealing.betas(self.annealing.temperatures).tolist(), self.annealing.leapfrog_steps
        sizes = torch.cat([self.sizes[:1], self.sizes])  # by index of beta
        log_weight = torch.zeros(u.shape[:2], dtype=torch.float64, device=u.device)
        moved = torch.zeros(u.shape[:2], device=u.device)
        for before, after in tracked(list(pairwise(order)), title, self.progress):
            base, joint = self.path.log_densities(u)
            log_weight += (betas[after] - betas[before]) * (joint - base).double()
            if after != order[-1]:  # what comes after the last weight changes nothing
                u, accepted = hmc_step(self.path.log_density(betas[after]), u, sizes[after], steps)
                moved += accepted
        check_weights(log_weight)
        transitions = self.annealing.temperatures - 1
        _warn_of_stuck(moved, transitions)
        return log_weight.cpu(), (moved / max(1, transitions)).mean(0).cpu()


def _mean_and_error(log_weight: Tensor) -> tuple[Tensor, Tensor]:
    """Log-mean-exp of log weights (chains, B), and its standard error by the delta method; each (B,)."""
    chains, total = len(log_weight), log_weight.logsumexp(0)
    share = (log_weight - total).exp()
    variance = (share * chains - 1).square().sum(0) / max(1, chains - 1) / chains
    return total - math.log(chains), variance.sqrt() if chains > 1 else torch.full_like(variance, torch.nan)


def _warn_of_stuck(moved: Tensor, transitions: int) -> None:
    stuck = (moved.sum(0) == 0).nonzero()[:, 0].tolist() if transitions else []
    if stuck:
        warnings.warn(
            f"no chain of {len(stuck)} data ever accepted a transition, the first at row {stuck[0]}: their estimates "
            "are plain importance sampling; use more temperatures or a smaller first_step_size",
            stacklevel=5,
        )
