"""What is trained against the pair, step by step with it: a critic, a multiplier."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from ppvae.engine.isolation import frozen
from ppvae.engine.particles import Particles
from ppvae.errors import ContractError
from ppvae.nn import MLP

Optimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
Draws = dict[str, Tensor]


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
    def loss(self, parts: Sequence[Particles], other: Sequence[Draws]) -> Tensor:
        """What the adversary minimises, a scalar.

        Args:
            parts: particles of the step that the pair has just made: of partly labelled data, those of its labelled
                and of its unlabelled rows.
            other: if :attr:`needs_other`, the guide's draws by site for as many parts of another batch, each
                (1, B', *event), without gradient.
        """


class Critic(Adversary):
    """A network D(z) that learns log r(z) / s(z) from draws of two densities r and s, by logistic regression.

    Its loss, in nats, is E_r softplus(-D) / 2 + E_s softplus(D) / 2, least where D = log r - log s.

    Args:
        network: (..., latent_dim) -> (..., 1); :func:`critic_network` if None.
        latent_dim: length of z.
        optimizer: parameters -> torch optimizer.
        site: the latent.
    """

    def __init__(self, network: nn.Module | None, latent_dim: int, optimizer: Optimizer, site: str = "z"):
        super().__init__(optimizer)
        self.site = site
        self.network = critic_network(latent_dim) if network is None else network
        self.latent_dim = latent_dim
        if not any(True for _ in self.network.parameters()):
            raise ValueError("expected a critic with parameters to train, got none")

    def log_ratio(self, z: Tensor) -> Tensor:
        """D(z), (..., latent_dim) -> (...); its gradient goes into z, and none into the network."""
        with frozen(self.network):
            return self._output(z)

    def logistic_loss(self, of_r: Tensor, of_s: Tensor) -> Tensor:
        """The loss, from draws (..., latent_dim) of either density, which get no gradient. The network sees both in one
        batch: one that normalises over its batch normalises them together."""
        both = [z.detach().flatten(0, -2) for z in (of_r, of_s)]
        on_r, on_s = self._output(torch.cat(both)).split([len(z) for z in both])  # weights are read once for both
        return (nn.functional.softplus(-on_r).mean() + nn.functional.softplus(on_s).mean()) / 2

    def _output(self, z: Tensor) -> Tensor:
        if z.shape[-1] != self.latent_dim:
            raise ContractError(
                f"expected a latent of {self.latent_dim} elements, got {z.shape[-1]}; give latent_dim={z.shape[-1]}"
            )
        output = self.network(z.to(next(self.network.parameters())))  # its type and device
        if output.shape != (*z.shape[:-1], 1):
            raise ContractError(f"expected a critic that gives one number a code, got {tuple(output.shape[-1:])}")
        return output.squeeze(-1)


def critic_network(dim: int, hidden: Iterable[int] = (1000,) * 5) -> MLP:
    """FactorVAE's: layers of 1,000 units, leaky rectifiers of slope 0.2."""
    return MLP(dim, [*hidden], 1, partial(nn.LeakyReLU, 0.2))


critic_adam = partial(torch.optim.Adam, lr=1e-4, betas=(0.5, 0.9), fused=True)
