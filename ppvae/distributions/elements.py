"""Distributions of the independent elements of an image or a vector, in terms of a network's output."""

from typing import Any

import torch
from pyro import distributions as dist
from pyro.distributions.util import sum_rightmost
from torch import Tensor
from torch.distributions import constraints

from ppvae.nn.functional import bernoulli_log_prob

FAR = 1e15  # in place of an infinite edge, so that a gradient of 0 times it is 0


class SummedElements(dist.TorchDistribution):
    """Independent elements that are summed over an event as they are scored; a base class.

    A subclass defines :meth:`with_shape`, the support of one element, ``sample`` and ``log_prob``.

    Args:
        shape: batch shape and event shape together.
        event_dim: number of rightmost dimensions that form one event.

    Example:

        >>> from ppvae.distributions import likelihoods
        >>> fn = likelihoods.Bernoulli()(torch.zeros(3, 2), event_dim=1)
        >>> isinstance(fn, SummedElements)
        True
    """

    arg_constraints = {}  # noqa: RUF012 (torch's own way)
    has_enumerate_support = False
    element_support: Any

    def __init__(self, shape: torch.Size, event_dim: int, validate_args: bool | None = None):
        split = len(shape) - event_dim
        super().__init__(shape[:split], shape[split:], validate_args=validate_args)

    def with_shape(self, shape: torch.Size, event_dim: int) -> "SummedElements":
        """The same elements, expanded to a shape of which the last ``event_dim`` dimensions are the event."""
        raise NotImplementedError(f"{type(self).__name__} must define with_shape(shape, event_dim)")

    @property
    def support(self) -> Any:
        """Events with each element in the support of one element."""
        return constraints.independent(self.element_support, len(self.event_shape))

    def expand(self, batch_shape: Any, _instance: Any = None) -> "SummedElements":
        """The distribution with that batch shape."""
        batch_shape = torch.Size(batch_shape)
        if batch_shape == self.batch_shape:
            return self
        return self.with_shape(batch_shape + self.event_shape, len(self.event_shape))

    def to_event(self, reinterpreted_batch_ndims: int | None = None) -> "SummedElements":
        """The distribution with that many more event dimensions; None for all."""
        more = len(self.batch_shape) if reinterpreted_batch_ndims is None else reinterpreted_batch_ndims
        return self.with_shape(self.batch_shape + self.event_shape, len(self.event_shape) + more)


class BernoulliElements(SummedElements):
    """Independent Bernoulli variables, as ``Bernoulli(logits=logits).to_event(event_dim)``, in fewer passes.

    Values may lie between 0 and 1: log p is then the expected log density of binary values with these means.

    Args:
        logits: log odds, any real numbers; shape (*batch_shape, *event_shape).
        event_dim: number of rightmost dimensions that form one event.

    Example:

        >>> images = BernoulliElements(torch.zeros(5, 8, 8), 2)
        >>> images.log_prob(images.sample()) / torch.tensor(2.0).log()  # 64 bits
        tensor([-64., -64., -64., -64., -64.])
    """

    element_support = constraints.unit_interval

    def __init__(self, logits: Tensor, event_dim: int = 0, validate_args: bool | None = None):
        self.logits = logits
        super().__init__(logits.shape, event_dim, validate_args)

    def with_shape(self, shape: torch.Size, event_dim: int) -> "BernoulliElements":
        """The same elements, expanded to a shape of which the last ``event_dim`` dimensions are the event."""
        return BernoulliElements(self.logits.expand(shape), event_dim)

    @property
    def mean(self) -> Tensor:
        """Probabilities of 1."""
        return self.logits.sigmoid()

    @property
    def variance(self) -> Tensor:
        """Variance of each element."""
        return self.mean * (1 - self.mean)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008 (torch's own signature)
        """Draws of 0 and 1, of the type of the logits."""
        with torch.no_grad():
            shape = torch.Size(sample_shape) + self.logits.shape
            uniform = torch.rand(shape, dtype=self.logits.dtype, device=self.logits.device)
            return uniform.lt_(self.mean)  # torch.bernoulli takes several times as long

    def log_prob(self, value: Tensor) -> Tensor:
        """Log probability of the event, in nats."""
        if self._validate_args:
            self._validate_sample(value)
        return bernoulli_log_prob(value, self.logits, len(self.event_shape))


class LogisticElements(SummedElements):
    """Independent logistic variables, each rounded to the nearest of the multiples of 1/top from 0 to 1.

        P(x) = sigmoid(a) - sigmoid(b),    a = (x + 1/(2 top) - loc) / scale,    b = (x - 1/(2 top) - loc) / scale
             = sigmoid(a) sigmoid(-b) (1 - exp(b - a))

    with a = inf in the last bin and b = -inf in the first. Each factor keeps its digits however far away loc is, and
    b - a = -1 / (top scale) is no difference.

    Args:
        loc: any real numbers; shape (*batch_shape, *event_shape).
        scale: above 0; broadcasts with ``loc``.
        top: number of levels less 1.
        event_dim: number of rightmost dimensions that form one event.

    Example:

        >>> levels = LogisticElements(torch.tensor(0.3), torch.tensor(0.1), 4)
        >>> levels.log_prob(torch.linspace(0, 1, 5)).exp()
        tensor([0.1480, 0.5311, 0.2835, 0.0342, 0.0032])
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}  # noqa: RUF012 (torch's own way)

    def __init__(self, loc: Tensor, scale: Tensor, top: int, event_dim: int = 0, validate_args: bool | None = None):
        self.loc, self.scale, self.top = loc, scale, top
        self.element_support = GreyGrid(top)
        super().__init__(torch.broadcast_shapes(loc.shape, scale.shape), event_dim, validate_args)

    def with_shape(self, shape: torch.Size, event_dim: int) -> "LogisticElements":
        """The same elements, expanded to a shape of which the last ``event_dim`` dimensions are the event."""
        return LogisticElements(self.loc.expand(shape), self.scale, self.top, event_dim)

    @property
    def mean(self) -> Tensor:
        """1/top sum_k P(x >= k/top) over k = 1..top."""
        edges = (torch.arange(self.top, dtype=self.loc.dtype, device=self.loc.device) + 0.5) / self.top
        return ((self.loc.unsqueeze(-1) - edges) / self.scale.unsqueeze(-1)).sigmoid().mean(-1)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008 (torch's own signature)
        """Draws of the levels."""
        with torch.no_grad():
            uniform = torch.rand(self._extended_shape(sample_shape), dtype=self.loc.dtype, device=self.loc.device)
            return ((self.loc + self.scale * uniform.logit()) * self.top).round().clamp(0, self.top) / self.top

    def log_prob(self, value: Tensor) -> Tensor:
        """Log probability of the event, in nats."""
        if self._validate_args:
            self._validate_sample(value)
        level = (value * self.top).round()
        first, last = (1 - level).clamp(min=0), (level - self.top + 1).clamp(min=0)  # 1 there and 0 elsewhere
        upper, lower = (level + 0.5) / self.top + FAR * last, (level - 0.5) / self.top - FAR * first
        precision, event_dim = 1 / self.scale, len(self.event_shape)
        one = precision.new_ones(())  # its log probability is log sigmoid
        below_upper = bernoulli_log_prob(one, (upper - self.loc) * precision, event_dim)
        above_lower = bernoulli_log_prob(one, (self.loc - lower) * precision, event_dim)
        width = (-torch.expm1(-precision / self.top)).log() * (1 - first - last)
        width = width.expand(torch.broadcast_shapes(width.shape, self.event_shape))
        return below_upper + above_lower + sum_rightmost(width, event_dim)


class GreyLevels(dist.Categorical):
    """A categorical over the evenly spaced grey values 0, 1/top, ..., 1 instead of their indices.

    Args:
        logits: shape (..., top + 1), not normalised.

    Example:

        >>> levels = GreyLevels(logits=torch.zeros(3))
        >>> levels.mean, levels.log_prob(torch.tensor(0.5)).exp()
        (tensor(0.5000), tensor(0.3333))
    """

    @property
    def top(self) -> int:
        """Number of levels less 1."""
        return self._num_events - 1

    @property
    def support(self) -> "GreyGrid":
        """The grey values."""
        return GreyGrid(self.top)

    @property
    def mean(self) -> Tensor:
        """Mean grey value."""
        values = torch.linspace(0, 1, self._num_events, dtype=self.logits.dtype, device=self.logits.device)
        return self.probs @ values

    def expand(self, batch_shape: Any, _instance: Any = None) -> "GreyLevels":
        """The distribution with that batch shape."""
        return GreyLevels(logits=self.logits.expand((*batch_shape, self._num_events)))

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008 (torch's own signature)
        """Draws of grey values, of the type of the logits."""
        return super().sample(sample_shape).to(self.logits.dtype) / self.top

    def log_prob(self, value: Tensor) -> Tensor:
        """Log probability of each value, in nats."""
        if self._validate_args:
            self._validate_sample(value)
        index = (value * self.top).round().long().unsqueeze(-1)
        batch = torch.broadcast_shapes(index.shape[:-1], self.batch_shape)
        return self.logits.expand((*batch, -1)).gather(-1, index.expand((*batch, 1))).squeeze(-1)


class GreyGrid(constraints.Constraint):
    """Multiples of 1/top from 0 to 1, to within float32 rounding.

    Example:

        >>> GreyGrid(4).check(torch.tensor([0.0, 0.25, 0.3, 1.25]))
        tensor([ True,  True, False, False])
    """

    is_discrete = True
    event_dim = 0

    def __init__(self, top: int):
        self.top = top

    def check(self, value: Tensor) -> Tensor:
        """Whether each element is a grey value."""
        level = value * self.top
        return ((level - level.round()).abs() < 1e-3) & (level > -0.5) & (level < self.top + 0.5)

    def __repr__(self) -> str:
        return f"multiples of 1/{self.top} from 0 to 1"
