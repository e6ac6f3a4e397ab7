"""Estimates of log p(x) by annealing, the results of :mod:`ppvae.evaluation.likelihood.annealing`."""

import math
from dataclasses import dataclass

from torch import Tensor

from ppvae.evaluation.likelihood.per_datum import PerDatum, sampling_error


@dataclass(frozen=True, eq=False)
class AnnealedEstimate(PerDatum):
    """log p(x) of B data by annealed importance sampling; in nats.

    Attributes:
        value: log-mean-exp of the weights over chains, shape (B,): in expectation a lower bound of log p(x) (of a
            run backwards: an upper bound).
        standard_error: of ``value`` over chains by the delta method, shape (B,); NaN for a run backwards, where all
            chains start from the same draw.
        log_weight: shape (chains, B).
        acceptance: share of accepted transitions, shape (B,).

    Example:

        >>> import torch
        >>> value, error = torch.tensor([-1.0, -3.0]), torch.tensor([0.1, 0.1])
        >>> estimate = AnnealedEstimate(value, error, log_weight=value.expand(4, 2), acceptance=torch.full((2,), 0.7))
        >>> estimate.mean
        -2.0
    """

    log_weight: Tensor
    acceptance: Tensor

    def __repr__(self) -> str:
        return (
            f"AnnealedEstimate(log p(x) {self.mean:.3f} nats, simulation error {self.simulation_error:.3f}, sampling "
            f"error {self.sampling_error:.3f} over {len(self.value)} data; {len(self.log_weight)} chains, acceptance "
            f"{self.acceptance.mean():.2f})"
        )


@dataclass(frozen=True, eq=False)
class AnnealingCheck(PerDatum):
    """Another estimate of log p(x) less the one of annealed importance sampling from the prior, datum by datum; nats.

    Where the mean is below zero by more than two errors, the other estimate misses a part of the posterior. Annealed
    importance sampling is a lower bound in expectation too: agreement within a large error says little.

    Example:

        >>> import torch
        >>> AnnealingCheck(torch.tensor([-1.4, -1.2]), torch.tensor([0.1, 0.1]))
        AnnealingCheck(-1.300 +- 0.100 nats from AIS over 2 data, too low)
    """

    @property
    def error(self) -> float:
        """Standard error of the mean difference: over data, or of the simulation where that is larger.

        NaN where neither exists: for a single datum with a single particle.
        """
        known = [each for each in (self.simulation_error, self.sampling_error) if not math.isnan(each)]
        return max(known, default=math.nan)

    @property
    def verdict(self) -> str:
        """ "too low" or "too high" by more than two errors, else "agrees"; "no error" where that is NaN."""
        if math.isnan(self.error):
            return "no error"
        return "agrees" if abs(self.mean) <= 2 * self.error else "too low" if self.mean < 0 else "too high"

    def __repr__(self) -> str:
        return (
            f"AnnealingCheck({self.mean:.3f} +- {self.error:.3f} nats from AIS over {len(self.value)} data, "
            f"{self.verdict})"
        )


@dataclass(frozen=True, eq=False)
class BidirectionalEstimate:
    """Lower and upper bounds of log p(x) on data drawn from the model itself; in nats.

    Attributes:
        lower: the forward run.
        upper: the backward run.
        x: the simulated data, shape (B, *event_shape). Evaluate them by another seed than the one of the simulation:
            with the same one, draws of the guide repeat its random numbers.

    Example:

        >>> import torch
        >>> lower, upper = (
        ...     AnnealedEstimate(value, torch.zeros(2), value.expand(4, 2), torch.ones(2))
        ...     for value in (torch.tensor([-1.0, -3.0]), torch.tensor([-0.5, -2.5]))
        ... )
        >>> BidirectionalEstimate(lower, upper, x=torch.zeros(2, 5)).gap
        0.5
    """

    lower: AnnealedEstimate
    upper: AnnealedEstimate
    x: Tensor

    @property
    def gap(self) -> float:
        """Mean of upper - lower, which bounds the mean error of either."""
        return self.upper.mean - self.lower.mean

    @property
    def gap_standard_error(self) -> float:
        """Standard error of :attr:`gap` over the data."""
        return sampling_error(self.upper.value - self.lower.value)

    def __repr__(self) -> str:
        return (
            f"BidirectionalEstimate(lower {self.lower.mean:.3f}, upper {self.upper.mean:.3f}, "
            f"gap {self.gap:.3f} +- {self.gap_standard_error:.3f} nats over {len(self.x)} data)"
        )
