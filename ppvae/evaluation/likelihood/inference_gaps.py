"""What a guide loses, and where: by its family of distributions, or by amortizing them.

    log p(x)  -  L[q*]  =  approximation gap     q*: the best of the guide's family for this datum alone
    L[q*]     -  L[q]   =  amortization gap      q:  the guide's own answer

Source: Cremer, Li and Duvenaud 2018, "Inference Suboptimality in Variational Autoencoders", equations 2 to 4.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import pyro
import torch
from rich.progress import Progress
from torch import Tensor

from ppvae.distributions.gaussians import diagonal_normal
from ppvae.engine.checks import check_input, check_parameters, check_weights, to_device_of
from ppvae.engine.contract import AmortizedGuide, check_pair, is_amortized
from ppvae.engine.isolation import evaluation_mode, forked_randomness
from ppvae.engine.pair import replay
from ppvae.errors import ContractError
from ppvae.evaluation.likelihood.importance import LogMarginal, estimate
from ppvae.evaluation.likelihood.per_datum import PerDatum
from ppvae.objectives.local import Family, ascent, at_features

WINDOW = 100  # steps over which the bound is averaged, to see whether it still rises


@dataclass(frozen=True, eq=False)
class Bound(PerDatum):
    """An evidence lower bound of each datum, with its Monte Carlo standard error; shape (B,), nats."""

    def __sub__(self, other: "Bound") -> "Bound":
        return Bound(self.value - other.value, (self.standard_error**2 + other.standard_error**2).sqrt())

    def __repr__(self) -> str:
        return f"{self.mean:.3f} +- {self.mean_standard_error:.3f}"


@dataclass(frozen=True, eq=False)
class Gaps:
    """The gaps of one guide on B data; each a :class:`Bound`, in nats.

    Attributes:
        log_p: log p(x) by importance sampling from the one of the three that gives most.
        local: the bound at the best member of the guide's family, as far as its ``encoder(x)`` reaches: what a flow's
            maps learned for all data stays as it is.
        local_gaussian: the bound at the best diagonal Gaussian.
        amortized: the guide's own bound.
        khat: Pareto k-hat of the weights at the best member of the guide's family, shape (B,).
    """

    log_p: Bound
    local: Bound
    local_gaussian: Bound
    amortized: Bound
    khat: Tensor

    @property
    def approximation(self) -> Bound:
        """log p(x) - L[q*]."""
        return self.log_p - self.local

    @property
    def amortization(self) -> Bound:
        """L[q*] - L[q]."""
        return self.local - self.amortized

    def __repr__(self) -> str:
        return (
            f"Gaps(log p {self.log_p}, local {self.local}, local Gaussian {self.local_gaussian}, amortized "
            f"{self.amortized}; approximation {self.approximation}, amortization {self.amortization} nats)"
        )


def gaps(
    model,
    guide: AmortizedGuide,
    x: Tensor,
    *,
    num_particles: int = 1000,
    learning_rate: float = 1e-3,
    patience: int = 10,
    max_windows: int = 100,
    batch_size: int = 100,
    seed: int = 0,
    progress: bool = False,
) -> Gaps:
    """Split log p(x) - ELBO of each datum into its approximation and its amortization gap.

    Args:
        model: generative model with one latent "z".
        guide: an :class:`AmortizedGuide`; what its encoder gives is optimised datum by datum, starting from there.
        x: data, shape (B, *event_shape).
        num_particles: draws for each bound and for log p(x).
        learning_rate: of Adam on the local answers.
        patience: windows of 100 steps without a gain of the mean bound after which a local optimum is taken.
        max_windows: the most windows.
        batch_size: data that are optimised at once.
        seed, progress: of the run.
    """
    require_amortized(guide)
    if min(num_particles, patience, max_windows, batch_size) < 1 or not learning_rate > 0:
        raise ValueError("expected num_particles, patience, max_windows, batch_size and learning_rate above 0")
    check_parameters(model, guide)
    check_input(x, None)
    x = to_device_of(model, x)
    check_pair(model, guide, x[:4])
    climb = {"learning_rate": learning_rate, "patience": patience, "max_windows": max_windows}
    with (
        evaluation_mode(model, guide, device=x.device, seed=seed),
        pyro.validation_enabled(False),
        Progress(disable=not progress) as bar,
    ):
        parts = [
            _of_block(model, guide, x[start : start + batch_size], start, num_particles, climb)
            for start in bar.track(range(0, len(x), batch_size), description="gaps")
        ]
    bounds = [
        Bound(torch.cat([part[i][0] for part in parts]), torch.cat([part[i][1] for part in parts])) for i in range(4)
    ]
    return Gaps(*bounds, khat=torch.cat([part[4] for part in parts]))


def require_amortized(guide) -> None:
    """Raise ContractError unless what a guide answers for a datum can be improved."""
    if not is_amortized(guide):
        raise ContractError(
            f"expected an AmortizedGuide, whose answer for a datum can be improved, got {type(guide).__name__}; derive "
            "it from ppvae.AmortizedGuide, and define distribution() rather than forward()"
        )


def _of_block(model, guide, x: Tensor, first_row: int, num_particles: int, climb: dict) -> tuple:
    start = guide.encoder(x)
    with forked_randomness(x.device):
        check_weights(replay(model, at_features(guide.distribution, start), x).log_weight, first_row)
    draws = guide.distribution(start).sample((100,))
    moments = torch.cat([draws.mean(0), draws.std(0).log()], -1)
    answers = [
        (guide.distribution, local_optimum(model, guide.distribution, x, start, **climb)),
        (diagonal_normal, local_optimum(model, diagonal_normal, x, moments, **climb)),
        (guide.distribution, start),
    ]
    estimates = [_estimate(model, family, features, x, num_particles) for family, features in answers]
    bounds = [elbo_of(e) for e in estimates]
    best = tightest(estimates)
    return (best.value, best.standard_error), *bounds, estimates[0].khat


def tightest(estimates: Sequence[PerDatum]) -> PerDatum:
    """Of several estimates of log p(x) on the same data, that of the highest mean.

    Each is in expectation a lower bound, so the highest is the closest. One for all the data: the highest datum by
    datum would pick up every lucky draw. (To average the estimates of p(x) is unbiased too, but its logarithm is too
    low by log m/n where m of n samplers work.)
    """
    return max(estimates, key=lambda estimate: estimate.mean)


def local_optimum(
    model, family: Family, x: Tensor, features: Tensor, learning_rate: float, patience: int, max_windows: int
) -> Tensor:
    """The features of :func:`ascent`, averaged from its best window on until patience is at its end.

    Near the optimum the iterates wander with the noise of the gradient; their average does not.
    """
    climb = ascent(model, family, x, features, learning_rate)
    best, plateau = -torch.inf, []
    for _ in range(max_windows):
        steps = [(f.clone(), bound.mean()) for f, bound in islice(climb, WINDOW)]
        mean = torch.stack([bound for _, bound in steps]).mean().item()
        if mean > best:
            best, plateau = mean, []
        plateau.append(torch.stack([f for f, _ in steps]).mean(0))
        if len(plateau) > patience:
            break
    return torch.stack(plateau).mean(0)


def _estimate(model, family: Family, features: Tensor, x: Tensor, num_particles: int) -> LogMarginal:
    return estimate(model, lambda rows: at_features(family, features[rows]), x, None, num_particles, pairs=1000)


def elbo_of(marginal: LogMarginal) -> tuple[Tensor, Tensor]:
    """The evidence lower bound, mean of log w, and its standard error, each (B,)."""
    return marginal.bound(1), marginal.bound_standard_error(1)
