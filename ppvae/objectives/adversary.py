"""What is trained against the pair, step by step with it: a critic, a multiplier."""

from abc import abstractmethod
from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor, nn

from ppvae.isolation import frozen
from ppvae.nn import MLP
from ppvae.particles import Particles

Optimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class Adversary(nn.Module):
    """A module that a regulariser owns and :func:`ppvae.fit` trains, with a loss and an optimizer of its own.

    In each step the pair learns first, from a penalty that gives no gradient to the adversary; then the adversary,
    from a loss that gives none to the pair.

    Args:
        optimizer: parameters -> torch optimizer.

    Attributes:
        needs_other: whether :meth:`loss` reads draws for a second batch, independent of the first.
    """

    needs_other = False

    def __init__(self, optimizer: Optimizer):
        super().__init__()
        self.optimizer = optimizer

    @abstractmethod
    def loss(self, particles: Particles, other: dict[str, Tensor] | None) -> Tensor:
        """What the adversary minimises, a scalar.

        Args:
            particles: of the step that the pair has just made.
            other: if :attr:`needs_other`, the guide's draws by site for another batch, each (1, B', *event), without
                gradient.
        """


class Critic(Adversary):
    """A network D(z) that learns log r(z) / s(z) from draws of two densities r and s, by logistic regression.

    Its loss, in nats, is E_r softplus(-D) / 2 + E_s softplus(D) / 2, least where D = log r - log s.

    Args:
        network: (..., D) -> (..., 1).
        optimizer: parameters -> torch optimizer.
    """

    def __init__(self, network: nn.Module, optimizer: Optimizer):
        super().__init__(optimizer)
        self.network = network

    def log_ratio(self, z: Tensor) -> Tensor:
        """D(z), (..., D) -> (...); its gradient goes into z, and none into the network."""
        with frozen(self.network):
            return self._output(z)

    def separation(self, of_r: Tensor, of_s: Tensor) -> Tensor:
        """The loss, from draws (..., D) of either density, which get no gradient."""
        on_r, on_s = self._output(of_r.detach()), self._output(of_s.detach())
        return (nn.functional.softplus(-on_r).mean() + nn.functional.softplus(on_s).mean()) / 2

    def _output(self, z: Tensor) -> Tensor:
        return self.network(z.to(next(self.network.parameters()).dtype)).squeeze(-1)


def critic_network(dim: int, hidden: Iterable[int] = (1000,) * 5) -> MLP:
    """FactorVAE's: layers of 1,000 units, leaky rectifiers of slope 0.2."""
    return MLP(dim, [*hidden], 1, partial(nn.LeakyReLU, 0.2))


critic_adam = partial(torch.optim.Adam, lr=1e-4, betas=(0.5, 0.9), fused=True)
