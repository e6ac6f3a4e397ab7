"""Data with missing elements: NaN marks an element that was not observed.

    log p(x_observed) = sum over observed d of log p(x_d)

Source: Mattei and Frellsen 2019, "MIWAE: Deep Generative Modelling and Imputation of Incomplete Data Sets", section 3.
"""

from typing import Any

import torch
from pyro import distributions as dist
from pyro.distributions.util import sum_rightmost
from torch import Tensor
from torch.distributions import constraints


class ObservedElements(dist.TorchDistribution):
    """Independent elements, where NaN marks a missing one: ``log_prob`` sums over the observed elements.

    Draws are complete. The support accepts NaN. Missing elements are filled before anything is computed, and their
    terms get weight 0, so that no NaN reaches a gradient and no gradient depends on the fill.

    Args:
        base: distribution of each element, event shape ().
        event_dim: number of rightmost batch dimensions of ``base`` that form one event.
        fill: a value of finite density under ``base`` for all parameters.

    Raises ValueError if ``base`` has event dimensions, or fewer than ``event_dim`` batch dimensions.

    Example:

        >>> x = torch.tensor([[0.5, torch.nan, -0.5], [torch.nan] * 3])
        >>> ObservedElements(dist.Normal(torch.zeros(2, 3), 1.0), 1).log_prob(x)
        tensor([-2.0879,  0.0000])
    """

    arg_constraints = {}  # noqa: RUF012 (torch's own way)

    def __init__(self, base: Any, event_dim: int = 0, fill: float = 0.0, validate_args: bool | None = None):
        if base.event_shape or len(base.batch_shape) < event_dim:
            raise ValueError(
                f"expected a distribution of single elements with at least {event_dim} batch dimensions, got event "
                f"shape {tuple(base.event_shape)} and batch shape {tuple(base.batch_shape)}; leave .to_event(n) away"
            )
        self.base, self.fill, self.has_rsample = base, fill, base.has_rsample
        split = len(base.batch_shape) - event_dim
        super().__init__(base.batch_shape[:split], base.batch_shape[split:], validate_args=validate_args)

    @property
    def support(self) -> Any:
        """Events with each element NaN or in the support of the element's distribution."""
        return constraints.independent(_ObservedIn(self.base.support), len(self.event_shape))

    @property
    def mean(self) -> Tensor:
        """Mean of the complete event."""
        return self.base.mean

    @property
    def variance(self) -> Tensor:
        """Variance of each element of the complete event."""
        return self.base.variance

    def expand(self, batch_shape: Any, _instance: Any = None) -> "ObservedElements":
        """The distribution with that batch shape."""
        base = self.base.expand(torch.Size(batch_shape) + self.event_shape)
        return ObservedElements(base, len(self.event_shape), self.fill)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008 (torch's own signature)
        """Draws of the complete event, without gradient."""
        return self.base.sample(sample_shape)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008 (torch's own signature)
        """Draws of the complete event, with gradient."""
        return self.base.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Sum of the log densities of the observed elements, in nats; 0 where there are none."""
        observed = value.detach().clone().eq_(value)  # 1, or 0 for NaN; a boolean mask takes ten times as long
        filled = value.nan_to_num(self.fill, torch.inf, -torch.inf)
        return sum_rightmost(self.base.log_prob(filled) * observed, len(self.event_shape))


class _ObservedIn(constraints.Constraint):
    """NaN, or a value that satisfies another constraint."""

    def __init__(self, observed: Any):
        self.observed = observed
        self.is_discrete, self.event_dim = observed.is_discrete, observed.event_dim

    def check(self, value: Tensor) -> Tensor:
        return value.isnan() | self.observed.check(value)

    def __repr__(self) -> str:
        return f"NaN or {self.observed}"
