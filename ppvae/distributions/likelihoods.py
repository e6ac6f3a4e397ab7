"""Likelihoods p(x | z) as objects: a network's output in, a distribution over x out.

Each takes a tensor of shape ``(..., *event_shape)`` (``Categorical``: one more dimension, the grey levels)
and gives a distribution of event shape ``event_shape``.
"""

import torch
import torch.nn.functional as F
from pyro import distributions as dist
from pyro.distributions.util import sum_rightmost
from torch import Tensor, nn
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all


class Likelihood(nn.Module):
    """``likelihood(output, event_dim)`` -> distribution over x."""

    def forward(self, output: Tensor, event_dim: int) -> dist.TorchDistribution:
        raise NotImplementedError


class Bernoulli(Likelihood):
    """Bernoulli with logits from the network; x in [0, 1].

    For x strictly between 0 and 1 this is the usual cross-entropy, the expected log density of pixels drawn
    with probability x: not a normalised density over grey values. Binarize data for an honest log p(x).
    """

    def forward(self, output: Tensor, event_dim: int) -> dist.TorchDistribution:
        return _BernoulliImage(output, event_dim)


class Gaussian(Likelihood):
    """Gaussian whose mean is the network's output, with one standard deviation for all elements.

    Args:
        scale: standard deviation, or its initial value where it is learned; above 0.
        learned: make the scale a parameter of the model.
    """

    def __init__(self, scale: float = 1.0, learned: bool = False):
        super().__init__()
        if not scale > 0:
            raise ValueError(f"expected scale above 0, got {scale}")
        log_scale = torch.tensor(float(scale)).log()
        if learned:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale)

    def forward(self, output: Tensor, event_dim: int) -> dist.TorchDistribution:
        return dist.Normal(output, self.log_scale.exp()).to_event(event_dim)


class Categorical(Likelihood):
    """Independent categorical over grey levels 0, 1/(levels-1), ..., 1 of each element.

    The network gives ``(..., *event_shape, levels)`` logits. log p(x) is that of a discrete variable, so
    minus it over (number of elements * ln 2) is bits/dim.
    """

    def __init__(self, levels: int = 256):
        super().__init__()
        if levels < 2:
            raise ValueError(f"expected at least 2 levels, got {levels}")
        self.levels = levels

    def forward(self, output: Tensor, event_dim: int) -> dist.TorchDistribution:
        if output.shape[-1] != self.levels:
            raise ValueError(f"expected {self.levels} logits in the last dimension, got {tuple(output.shape)}")
        return _GreyLevels(logits=output).to_event(event_dim)


class DiscretizedLogistic(Likelihood):
    """Logistic noise around the network's output, rounded to the grey levels 0, 1/(levels-1), ..., 1.

        P(x) = sigmoid((x + 1/2 bin - mu) / s) - sigmoid((x - 1/2 bin - mu) / s),    bin = 1/(levels-1)

    mu is the network's output, any real number; s is learned. The first and the last bin are open, so that the levels'
    probabilities sum to 1. log p(x) is that of a discrete variable: minus it over (number of elements * ln 2) is
    bits/dim.

    Args:
        levels: number of grey levels.
        scale: initial value of s, where the white is 1 away from the black; above 0.
        shape: of s: () for one for all elements, the event shape for one for each element.

    Source: Kingma et al. 2016, "Improving Variational Inference with Inverse Autoregressive Flow", section 5.2;
    Salimans et al. 2017, "PixelCNN++", section 2.1.
    """

    def __init__(self, levels: int = 256, scale: float = 0.1, shape: tuple[int, ...] = ()):
        super().__init__()
        if levels < 2:
            raise ValueError(f"expected at least 2 levels, got {levels}")
        if not scale > 0:
            raise ValueError(f"expected scale above 0, got {scale}")
        self.levels = levels
        self.log_scale = nn.Parameter(torch.full(shape, float(scale)).log())

    def forward(self, output: Tensor, event_dim: int) -> dist.TorchDistribution:
        return _RoundedLogistic(output, self.log_scale.exp(), self.levels - 1).to_event(event_dim)


class _BernoulliImage(dist.TorchDistribution):
    """Independent Bernoulli over the rightmost ``event_dim`` dimensions, summed as it is scored.

    The numbers of ``Bernoulli(logits=l).to_event(n)``, without making shapes equal beforehand and with the
    support that grey values need.
    """

    arg_constraints = {}  # noqa: RUF012 (any real logits)
    has_enumerate_support = False

    def __init__(self, logits: Tensor, event_dim: int, validate_args=None):
        self.logits = logits
        split = logits.dim() - event_dim
        super().__init__(logits.shape[:split], logits.shape[split:], validate_args=validate_args)

    @property
    def support(self):
        return constraints.independent(constraints.unit_interval, len(self.event_shape))

    @property
    def mean(self) -> Tensor:
        return self.logits.sigmoid()

    @property
    def variance(self) -> Tensor:
        return self.mean * (1 - self.mean)

    def expand(self, batch_shape, _instance=None):
        batch_shape = torch.Size(batch_shape)
        if batch_shape == self.batch_shape:
            return self
        return _BernoulliImage(self.logits.expand(batch_shape + self.event_shape), len(self.event_shape))

    def sample(self, sample_shape=torch.Size()) -> Tensor:  # noqa: B008 (torch's own signature)
        with torch.no_grad():
            return torch.bernoulli(self.mean.expand(torch.Size(sample_shape) + self.logits.shape))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        # Fewer passes over memory than torch's cross-entropy takes without a gradient; subtracted pixel by pixel, since
        # the two sums would cancel. From l = 40 on, l is log(1 + e^l) to the last digit of float64.
        return sum_rightmost(value * self.logits - F.softplus(self.logits, threshold=40.0), len(self.event_shape))


class _GreyLevels(dist.Categorical):
    """A categorical over evenly spaced grey values in [0, 1] instead of their indices."""

    @property
    def top(self) -> int:
        return self._num_events - 1

    @property
    def support(self):
        return _Grid(self.top)

    @property
    def mean(self) -> Tensor:
        values = torch.linspace(0, 1, self._num_events, dtype=self.logits.dtype, device=self.logits.device)
        return self.probs @ values

    def expand(self, batch_shape, _instance=None):
        batch_shape = torch.Size(batch_shape)
        return _GreyLevels(logits=self.logits.expand((*batch_shape, self._num_events)))

    def sample(self, sample_shape=torch.Size()) -> Tensor:  # noqa: B008 (torch's own signature)
        return super().sample(sample_shape).to(self.logits.dtype) / self.top

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        index = (value * self.top).round().long().unsqueeze(-1)
        batch = torch.broadcast_shapes(index.shape[:-1], self.batch_shape)
        return self.logits.expand((*batch, -1)).gather(-1, index.expand((*batch, 1))).squeeze(-1)


class _RoundedLogistic(dist.TorchDistribution):
    """A logistic variable, rounded to the nearest of the multiples of 1/top from 0 to 1."""

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}  # noqa: RUF012 (torch's own way)
    has_enumerate_support = False

    def __init__(self, loc: Tensor, scale: Tensor, top: int, validate_args=None):
        self.loc, self.scale = broadcast_all(loc, scale)
        self.top = top
        super().__init__(self.loc.shape, validate_args=validate_args)

    @property
    def support(self):
        return _Grid(self.top)

    @property
    def mean(self) -> Tensor:
        """1/top sum_k P(x >= k/top) over k = 1..top."""
        edges = (torch.arange(self.top, dtype=self.loc.dtype, device=self.loc.device) + 0.5) / self.top
        return ((self.loc.unsqueeze(-1) - edges) / self.scale.unsqueeze(-1)).sigmoid().mean(-1)

    def expand(self, batch_shape, _instance=None):
        return _RoundedLogistic(self.loc.expand(batch_shape), self.scale.expand(batch_shape), self.top)

    def sample(self, sample_shape=torch.Size()) -> Tensor:  # noqa: B008 (torch's own signature)
        with torch.no_grad():
            uniform = torch.rand(self._extended_shape(sample_shape), dtype=self.loc.dtype, device=self.loc.device)
            return ((self.loc + self.scale * uniform.logit()) * self.top).round().clamp(0, self.top) / self.top

    def log_prob(self, value: Tensor) -> Tensor:
        # With a and b the upper and lower edge: sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)).
        # Each factor keeps its digits however far away the mean is, and b - a = -bin / s is no difference.
        if self._validate_args:
            self._validate_sample(value)
        level = (value * self.top).round()
        below_upper = F.logsigmoid(((level + 0.5) / self.top - self.loc) / self.scale)
        above_lower = F.logsigmoid((self.loc - (level - 0.5) / self.top) / self.scale)
        width = (-torch.expm1(-1 / (self.top * self.scale))).log()
        first, last = level == 0, level == self.top
        inside = torch.where(last, 0.0, below_upper) + torch.where(first, 0.0, above_lower)
        return inside + torch.where(first | last, 0.0, width)


class _Grid(constraints.Constraint):
    """Multiples of 1/top from 0 to 1, to within float32 rounding."""

    is_discrete = True
    event_dim = 0

    def __init__(self, top: int):
        self.top = top

    def check(self, value: Tensor) -> Tensor:
        level = value * self.top
        return ((level - level.round()).abs() < 1e-3) & (level > -0.5) & (level < self.top + 0.5)

    def __repr__(self) -> str:
        return f"multiples of 1/{self.top} from 0 to 1"
