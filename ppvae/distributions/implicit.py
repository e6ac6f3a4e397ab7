"""A distribution that is known by its samples alone: what a generator gives, without a density."""

from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Distribution, constraints

from ppvae.errors import ContractError

_ONE = torch.Size()


class Implicit(TorchDistribution):
    """x of a generator, given its latents: it can be sampled and has no density.

    The latents of a generator (codes and noise) determine x, so that every sample given them is the same tensor, with
    its gradient.

    Args:
        x: the output of the generator, (*batch_shape, *event_shape).
        event_dim: dimensions of a datum.

    ``log_prob`` raises ContractError. So does every function of ppvae that reads log p(x | z).

    Example:

        >>> generated = torch.rand(5, 8, 8)
        >>> x = Implicit(generated, event_dim=2)
        >>> x.batch_shape, x.event_shape, torch.equal(x.sample(), generated)
        (torch.Size([5]), torch.Size([8, 8]), True)
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    has_rsample = True

    def __init__(self, x: Tensor, event_dim: int):
        self.x = x
        cut = x.dim() - event_dim
        super().__init__(x.shape[:cut], x.shape[cut:], validate_args=False)

    @property
    def support(self) -> Any:
        """Real tensors of the event shape."""
        return constraints.independent(constraints.real, self.event_dim)

    @property
    def mean(self) -> Tensor:
        """The output of the generator."""
        return self.x

    def rsample(self, sample_shape: Any = _ONE) -> Tensor:
        """The output of the generator, (*sample_shape, *batch_shape, *event_shape)."""
        return self.x.expand(*sample_shape, *self.x.shape)

    def sample(self, sample_shape: Any = _ONE) -> Tensor:
        """:meth:`rsample` without gradient."""
        return self.rsample(sample_shape).detach()

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Implicit":
        """The same distribution with another batch shape."""
        return Implicit(self.x.expand(*batch_shape, *self.event_shape), self.event_dim)

    def log_prob(self, value: Tensor) -> Tensor:
        """Raises ContractError."""
        raise ContractError(
            "expected a distribution of x with a density, got Implicit, the samples of a generator, which have none; "
            "train it by ppvae.train(ppvae.info_gan(...), x)"
        )


_WITHOUT_DENSITY = (Implicit.log_prob, Distribution.log_prob)


def has_density(fn: Any) -> bool:
    """Whether a distribution, without ``to_event``, ``expand`` and ``mask``, defines ``log_prob``.

    Example:

        >>> has_density(torch.distributions.Normal(0.0, 1.0)), has_density(Implicit(torch.zeros(3, 2), event_dim=1))
        (True, False)
    """
    while fn is not None:
        if type(fn).log_prob in _WITHOUT_DENSITY:
            return False
        fn = getattr(fn, "base_dist", None)
    return True
