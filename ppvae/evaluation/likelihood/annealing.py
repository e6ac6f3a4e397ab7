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

import pyro
import torch
from rich.progress import Progress
from torch import Tensor
from torch.distributions import biject_to

from ppvae.engine.checks import check_input, check_parameters, check_weights, to_device_of
from ppvae.engine.isolation import evaluation_mode, frozen
from ppvae.engine.pair import at_values, require_can_score, simulate, sites_of
from ppvae.engine.tracing import trace
from ppvae.errors import ContractError
from ppvae.evaluation.likelihood.annealed import AnnealedEstimate, BidirectionalEstimate
from ppvae.evaluation.likelihood.hmc import hmc_step
from ppvae.evaluation.likelihood.simulated import refuse_discrete

TARGET_ACCEPTANCE = 0.65
PILOT_TEMPERATURES = 100
PILOT_GAIN = 0.75  # of the logarithm of the step size, for each transition
PILOT_TRANSITIONS = 3  # at each temperature of the pilot


@dataclass(frozen=True)
class Annealing:
    """How to anneal.

    Args:
        temperatures: T, the number of transitions of the scored run.
        chains: independent chains for each datum.
        leapfrog_steps: of each transition.
        schedule: "sigmoid" (of radius 4: slow at both ends) or "linear".
        first_step_size: at which the pilot starts.
    """

    temperatures: int = 1000
    chains: int = 16
    leapfrog_steps: int = 10
    schedule: str = "sigmoid"
    first_step_size: float = 0.1

    def __post_init__(self) -> None:
        if min(self.temperatures, self.chains, self.leapfrog_steps) < 1 or not self.first_step_size > 0:
            raise ValueError(f"expected temperatures, chains, leapfrog_steps and step size above 0, got {self}")
        if self.schedule not in ("sigmoid", "linear"):
            raise ValueError(f'expected schedule "sigmoid" or "linear", got {self.schedule!r}')

    def betas(self, steps: int) -> Tensor:
        """b_0 = 0 < ... < b_steps = 1."""
        even = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        if self.schedule == "linear":
            return even
        sigmoid = (4 * (2 * even - 1)).sigmoid()
        return (sigmoid - sigmoid[0]) / (sigmoid[-1] - sigmoid[0])


def ais(
    model, x: Tensor, y: Tensor | None = None, *, guide=None, seed: int = 0, progress: bool = False, **settings
) -> AnnealedEstimate:
    """Estimate log p(x) of each datum (log p(x, y) where labels are given) by annealed importance sampling.

    Args:
        model: generative model with continuous latents.
        x: data, shape (B, *event_shape).
        y: labels, all known, shape (B,); or None.
        guide: where to start from, in place of the prior; it must be able to score any value.
        seed: of the whole run; the caller's random state is left alone.
        progress: show a progress bar.
        settings: of :class:`Annealing`: temperatures, chains, leapfrog_steps, schedule.

    Warns, with its row, of a datum none of whose chains ever moved: its estimate is plain importance sampling.
    """
    annealing = Annealing(**settings)
    x, y = to_device_of(model, x), None if y is None else to_device_of(model, y)
    path = _Path(model, guide, x, y, annealing.chains)
    with (
        pyro.validation_enabled(False),
        evaluation_mode(*path.modules, device=x.device, seed=seed),
        frozen(model),
        Progress(disable=not progress) as bar,
    ):
        sizes = _pilot(path, annealing, bar)
        return _run(path, annealing, path.start(), sizes, bar, "AIS", backwards=False)


def bdmc(
    model, like: Tensor, *, guide=None, seed: int = 0, progress: bool = False, **settings
) -> BidirectionalEstimate:
    """Bound log p(x) from both sides on simulated data: how far off can :func:`ais` be with these settings?

    Args:
        model: generative model with continuous latents.
        like: a tensor of the shape (B, *event_shape) and type of the data to be simulated; its values are not used.
        guide, seed, progress, settings: see :func:`ais`.
    """
    annealing = Annealing(**settings)
    like = to_device_of(model, like)
    with evaluation_mode(model, device=like.device, seed=seed):
        x, values = simulate(model, like)
    path = _Path(model, guide, x, None, annealing.chains)
    with (
        pyro.validation_enabled(False),
        evaluation_mode(*path.modules, device=like.device, seed=seed + 1),
        frozen(model),
        Progress(disable=not progress) as bar,
    ):
        sizes = _pilot(path, annealing, bar)
        lower = _run(path, annealing, path.start(), sizes, bar, "forward", backwards=False)
        exact = path.unconstrained(
            {name: value.expand(annealing.chains, *value.shape[1:]) for name, value in values.items()}
        )
        upper = _run(path, annealing, exact, sizes, bar, "backward", backwards=True)
    return BidirectionalEstimate(lower, upper, x)


class _Path:
    """log f_0 and log p(x, z) as functions of u: the latents of all sites, unconstrained, in one vector each."""

    def __init__(self, model, guide, x: Tensor, y: Tensor | None, chains: int):
        check_input(x, y)
        self.modules = [model] if guide is None else [model, guide]
        if guide is not None:
            check_parameters(model, guide)
            require_can_score(guide)
        if y is not None and (y < 0).any():
            raise ContractError("expected labels that are all known, or None; anneal the unlabelled rows on their own")
        self.model, self.guide, self.x, self.y, self.chains = model, guide, x, y, chains
        with evaluation_mode(*self.modules, device=x.device):
            sites, others = (
                {s.name: s for s in sites_of(trace(model, x, y, 1)).values() if not s.observed} for _ in "ab"
            )
        refuse_discrete(sites)
        _refuse_moving_supports(sites, others)
        self.transforms = {name: _unconstraining(site.distribution.support) for name, site in sites.items()}
        self.shapes = {name: self.transforms[name].inv(site.value).shape[2:] for name, site in sites.items()}

    def _latents(self) -> dict:
        sites = sites_of(trace(self.model, self.x, self.y, 1))
        return {name: site for name, site in sites.items() if not site.observed}

    def start(self) -> Tensor:
        """Draws of f_0, shape (chains, B, D)."""
        source = self.model if self.guide is None else self.guide
        sites = sites_of(trace(source, self.x, self.y, self.chains))
        full = (self.chains, len(self.x))
        return self.unconstrained(
            {name: sites[name].value.expand(*full, *sites[name].distribution.event_shape) for name in self.shapes}
        )

    def unconstrained(self, values: dict[str, Tensor]) -> Tensor:
        parts = [self.transforms[name].inv(values[name]) for name in self.shapes]
        return torch.cat([part.reshape(*part.shape[:2], -1) for part in parts], -1)

    def log_densities(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """log f_0 and log p(x, .) of u, each (chains, B), both with the Jacobian of the coordinates."""
        values, log_volume = {}, 0.0
        sizes = [math.prod(shape) for shape in self.shapes.values()]
        for (name, shape), part in zip(self.shapes.items(), u.split(sizes, -1), strict=True):
            part, transform = part.reshape(*u.shape[:2], *shape), self.transforms[name]
            values[name] = transform(part)
            volume = transform.log_abs_det_jacobian(part, values[name])
            log_volume = log_volume + volume.reshape(*u.shape[:2], -1).sum(-1)
        sites = at_values(self.model, self.x, self.y, values, self.chains).values()
        joint = sum(site.log_prob for site in sites)
        if self.guide is None:
            base = sum(site.log_prob for site in sites if not site.observed)
        else:
            base = sum(s.log_prob for s in at_values(self.guide, self.x, self.y, values, self.chains).values())
        return base + log_volume, joint + log_volume

    def log_density(self, beta: float):
        """u -> log f_beta(u)."""

        def function(u: Tensor) -> Tensor:
            base, joint = self.log_densities(u)
            return (1 - beta) * base + beta * joint

        return function


def _unconstraining(support):
    """The map from unconstrained coordinates; a mixture's support is that of its components."""
    return biject_to(getattr(support, "base_constraint", support) if "Mixture" in type(support).__name__ else support)


def _refuse_moving_supports(sites: dict, others: dict) -> None:
    """Between two runs of the model, a support that depends on a latent has moved."""
    moving = [
        name
        for name, site in sites.items()
        if not all(map(torch.equal, *(_bounds(each[name].distribution.support) for each in (sites, others))))
    ]
    if moving:
        raise ContractError(
            f"expected latents whose support is fixed, got {moving}, whose support depends on another latent; let the "
            "model draw a variable of fixed support and map it"
        )


def _bounds(support) -> list[Tensor]:
    """The numbers that a constraint is made of, those of its base constraint included."""
    own = [torch.as_tensor(v) for v in vars(support).values() if isinstance(v, (Tensor, int, float))]
    return own + (_bounds(support.base_constraint) if hasattr(support, "base_constraint") else [])


def _pilot(path: _Path, annealing: Annealing, bar: Progress) -> Tensor:
    """Step sizes at each of the T temperatures for each datum, (T, B), that accept about 65%."""
    coarse = annealing.betas(min(PILOT_TEMPERATURES, annealing.temperatures))[1:]
    u = path.start()
    size = torch.full((len(path.x),), annealing.first_step_size, dtype=u.dtype, device=u.device)
    found = []
    for beta in bar.track(coarse.tolist(), description="pilot"):
        for _ in range(PILOT_TRANSITIONS):
            u, accepted = hmc_step(path.log_density(beta), u, size, annealing.leapfrog_steps)
            size = size * (PILOT_GAIN * (accepted.to(size.dtype).mean(0) - TARGET_ACCEPTANCE)).exp()
        found.append(size)
    nearest = torch.bucketize(annealing.betas(annealing.temperatures)[1:], coarse).clamp(max=len(coarse) - 1)
    return torch.stack(found)[nearest.to(u.device)]


@torch.no_grad()
def _run(path: _Path, annealing: Annealing, u: Tensor, sizes: Tensor, bar: Progress, name: str, backwards: bool):
    betas = annealing.betas(annealing.temperatures).tolist()
    sizes = torch.cat([sizes[:1], sizes])  # by index of beta
    order = list(range(len(betas)))[:: -1 if backwards else 1]
    log_weight = torch.zeros(u.shape[:2], dtype=torch.float64, device=u.device)
    moved = torch.zeros(u.shape[:2], device=u.device)
    for before, after in bar.track(list(pairwise(order)), description=name):
        base, joint = path.log_densities(u)
        log_weight += (betas[after] - betas[before]) * (joint - base).double()
        if after != order[-1]:  # what comes after the last weight changes nothing
            u, accepted = hmc_step(path.log_density(betas[after]), u, sizes[after], annealing.leapfrog_steps)
            moved += accepted
    check_weights(log_weight)
    _warn_of_stuck(moved, len(betas) > 2)
    return _estimate(log_weight, moved / max(1, len(betas) - 2), -1 if backwards else 1)


def _estimate(log_weight: Tensor, accepted: Tensor, sign: int) -> AnnealedEstimate:
    """log E[w], or with sign -1, - log E[w] of backward weights, whose mean is 1 / p(x)."""
    chains = len(log_weight)
    total = log_weight.logsumexp(0)
    share = (log_weight - total).exp()
    variance = (share * chains - 1).square().sum(0) / max(1, chains - 1) / chains
    error = variance.sqrt() if chains > 1 and sign == 1 else torch.full_like(variance, torch.nan)
    found = (sign * (total - math.log(chains)), error, sign * log_weight, accepted.mean(0))
    return AnnealedEstimate(*(tensor.cpu() for tensor in found))


def _warn_of_stuck(moved: Tensor, transitions: bool) -> None:
    stuck = (moved.sum(0) == 0).nonzero()[:, 0].tolist() if transitions else []
    if stuck:
        warnings.warn(
            f"no chain of {len(stuck)} data ever accepted a transition, the first at row {stuck[0]}: their estimates "
            "are plain importance sampling; use more temperatures or a smaller first_step_size",
            stacklevel=3,
        )
