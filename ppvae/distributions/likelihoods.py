"""Likelihoods p(x | z) as modules: the output of a network in, a distribution over x out.

Each takes a tensor of shape ``(..., *event_shape)`` (``Categorical``: one more dimension, the grey levels) and gives a
distribution of event shape ``event_shape``. With ``missing=True`` NaN elements of x are missing, and log p(x | z) sums
over the observed elements (see :class:`~ppvae.distributions.missing.ObservedElements`).
"""

from typing import Any

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from ppvae.distributions.elements import BernoulliElements, GreyLevels, LogisticElements
from ppvae.distributions.missing import ObservedElements


class Likelihood(nn.Module):
    """Base of all likelihoods: define ``forward(output, event_dim)``, which gives a distribution over x.

    A likelihood of independent elements derives from :class:`ElementwiseLikelihood` instead.

    Example:

        >>> class Unit(Likelihood):
        ...     def forward(self, output, event_dim):
        ...         return dist.Normal(output, 1.0).to_event(event_dim)
        >>> Unit()(torch.zeros(3, 8, 8), event_dim=2).event_shape
        torch.Size([8, 8])
    """

    def forward(self, output: Tensor, event_dim: int) -> dist.TorchDistribution:
        """p(x | z) over events of ``event_dim`` dimensions."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(output, event_dim)")


class ElementwiseLikelihood(Likelihood):
    """Base of likelihoods with independent elements: define :meth:`elements`.

    Args:
        missing: NaN elements of x are missing.

    Example:

        >>> class Laplace(ElementwiseLikelihood):
        ...     def elements(self, output):
        ...         return dist.Laplace(output, 1.0)
        >>> x = torch.tensor([[1.0, torch.nan]])
        >>> Laplace(missing=True)(torch.zeros(1, 2), event_dim=1).log_prob(x)  # - 1 - log 2
        tensor([-1.6931])
    """

    def __init__(self, missing: bool = False):
        super().__init__()
        self.missing = missing

    def elements(self, output: Tensor) -> Any:
        """Distribution of each element, event shape ()."""
        raise NotImplementedError(f"{type(self).__name__} must define elements(output)")

    def forward(self, output: Tensor, event_dim: int) -> dist.TorchDistribution:
        """p(x | z) over events of ``event_dim`` dimensions."""
        elements = self.elements(output)
        return ObservedElements(elements, event_dim) if self.missing else elements.to_event(event_dim)


class Bernoulli(ElementwiseLikelihood):
    """Bernoulli with logits from the network; x in [0, 1].

    For x strictly between 0 and 1 log p is the usual cross-entropy: the expected log density of pixels drawn with
    probability x. It is not a normalised density over grey values, so binarize data for an honest log p(x).

    Args:
        missing: NaN elements of x are missing.

    Example:

        >>> Bernoulli()(torch.zeros(2, 8, 8), event_dim=2).log_prob(torch.ones(8, 8))  # - 64 log 2
        tensor([-44.3614, -44.3614])
    """

    def elements(self, output: Tensor) -> BernoulliElements:
        """Distribution of each element."""
        return BernoulliElements(output)


class Gaussian(ElementwiseLikelihood):
    """Gaussian with its mean from the network and one standard deviation for all elements.

    Args:
        scale: standard deviation, or its initial value if it is learned; above 0.
        learned: make the scale a parameter of the model.
        missing: NaN elements of x are missing.

    Raises ValueError for a scale out of range.

    Example:

        >>> Gaussian(0.5)(torch.zeros(2, 3), event_dim=1).log_prob(torch.zeros(3))
        tensor([-0.6774, -0.6774])
    """

    def __init__(self, scale: float = 1.0, learned: bool = False, missing: bool = False):
        super().__init__(missing)
        log_scale = torch.tensor(_positive(scale)).log()
        if learned:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale)

    def elements(self, output: Tensor) -> dist.Normal:
        """Distribution of each element."""
        return dist.Normal(output, self.log_scale.exp())


class Categorical(ElementwiseLikelihood):
    """Independent categorical over the grey levels 0, 1/(levels-1), ..., 1 of each element.

    The network gives ``(..., *event_shape, levels)`` logits. x is a discrete variable: - log p(x) / (number of elements
    * ln 2) is bits/dim.

    Args:
        levels: number of grey levels, at least 2.
        missing: NaN elements of x are missing.

    Raises ValueError for other numbers of levels or of logits.

    Example:

        >>> Categorical(4)(torch.zeros(8, 8, 4), event_dim=2).log_prob(torch.ones(8, 8))  # - 64 log 4
        tensor(-88.7228)
    """

    def __init__(self, levels: int = 256, missing: bool = False):
        super().__init__(missing)
        self.levels = _at_least_two(levels)

    def elements(self, output: Tensor) -> GreyLevels:
        """Distribution of each element."""
        if output.shape[-1] != self.levels:
            raise ValueError(f"expected {self.levels} logits in the last dimension, got {tuple(output.shape)}")
        return GreyLevels(logits=output)


class DiscretizedLogistic(ElementwiseLikelihood):
    """Logistic noise around the network's output, rounded to the grey levels 0, 1/(levels-1), ..., 1.

        P(x) = sigmoid((x + 1/2 bin - mu) / s) - sigmoid((x - 1/2 bin - mu) / s),    bin = 1/(levels-1)

    mu is the network's output, any real number; s is learned. The first and the last bin are open, so that the levels'
    probabilities sum to 1. x is a discrete variable: - log p(x) / (number of elements * ln 2) is bits/dim.

    Args:
        levels: number of grey levels, at least 2.
        scale: initial value of s, in units of the distance from black to white; above 0.
        shape: shape of s: () for one for all elements, the event shape for one for each element.
        missing: NaN elements of x are missing.

    Raises ValueError for arguments out of range.

    Source: Kingma et al. 2016, "Improving Variational Inference with Inverse Autoregressive Flow", section 5.2;
    Salimans et al. 2017, "PixelCNN++", section 2.1.

    Example:

        >>> DiscretizedLogistic(256)(torch.zeros(2, 8, 8), event_dim=2).log_prob(torch.zeros(8, 8)) / 64
        tensor([-0.6834, -0.6834], grad_fn=<DivBackward0>)
    """

    def __init__(self, levels: int = 256, scale: float = 0.1, shape: tuple[int, ...] = (), missing: bool = False):
        super().__init__(missing)
        self.levels = _at_least_two(levels)
        self.log_scale = nn.Parameter(torch.full(shape, _positive(scale)).log())

    def elements(self, output: Tensor) -> LogisticElements:
        """Distribution of each element."""
        return LogisticElements(output, self.log_scale.exp(), self.levels - 1)


def _positive(scale: float) -> float:
    if not scale > 0:
        raise ValueError(f"expected scale above 0, got {scale}")
    return float(scale)


def _at_least_two(levels: int) -> int:
    if levels < 2:
        raise ValueError(f"expected at least 2 levels, got {levels}")
    return levels
