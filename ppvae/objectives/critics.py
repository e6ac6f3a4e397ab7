"""Critics: networks, trained with the pair, that estimate the log ratio of two densities."""

from abc import abstractmethod
from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor, nn

from ppvae.engine.isolation import frozen
from ppvae.engine.player import Optimizer, Player, Turn
from ppvae.errors import ContractError
from ppvae.nn import MLP
from ppvae.nn.functional import softplus


class Critic(nn.Module):
    """A network D(z) that learns log r(z) / s(z) from draws of two densities r and s, by logistic regression.

    Its loss, in nats, is E_r softplus(-D) / 2 + E_s softplus(D) / 2, with its minimum at D = log r - log s.
    To write a new one, define :meth:`loss`.

    Args:
        network: (..., latent_dim) -> (..., 1); :func:`critic_network` if None.
        latent_dim: length of z.
        site: the latent.

    Example:

        >>> class NormalCritic(Critic):
        ...     def loss(self, turn):
        ...         z = turn.particles[0].latent(self.site).value
        ...         return self.logistic_loss(z, torch.randn_like(z))
        >>> NormalCritic(None, latent_dim=3).log_ratio(torch.zeros(5, 3)).shape
        torch.Size([5])
    """

    def __init__(self, network: nn.Module | None, latent_dim: int, site: str = "z"):
        super().__init__()
        self.site = site
        self.network = critic_network(latent_dim) if network is None else network
        self.latent_dim = latent_dim
        if not any(True for _ in self.network.parameters()):
            raise ValueError("expected a critic with parameters to train, got none")

    @abstractmethod
    def loss(self, turn: Turn) -> Tensor:
        """What the critic minimises, a scalar. It gives no gradient to the pair."""

    def player(self, optimizer: Optimizer, needs_other: bool = False) -> Player:
        """The critic as a player of each training step."""
        return Player(f"critic/{self.site}", self, self.loss, optimizer, needs_other=needs_other)

    def log_ratio(self, z: Tensor) -> Tensor:
        """D(z), (..., latent_dim) -> (...). Its gradient reaches z, and not the network."""
        with frozen(self.network):
            return self._output(z)

    def logistic_loss(self, of_r: Tensor, of_s: Tensor) -> Tensor:
        """The loss, from draws (..., latent_dim) of either density, which get no gradient.

        Both go through the network as one batch: a network that normalises over its batch normalises them together.
        """
        both = [z.detach().flatten(0, -2) for z in (of_r, of_s)]
        on_r, on_s = self._output(torch.cat(both)).split([len(z) for z in both])  # weights are read once for both
        return (softplus(-on_r).mean() + softplus(on_s).mean()) / 2

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
    """FactorVAE's network: layers of 1,000 units, leaky rectifiers of slope 0.2.

    Example:

        >>> import torch
        >>> critic_network(3, hidden=[8])(torch.zeros(5, 3)).shape
        torch.Size([5, 1])
    """
    return MLP(dim, [*hidden], 1, partial(nn.LeakyReLU, 0.2))


def critic_adam(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """FactorVAE's optimizer of the critic: Adam, 1e-4, betas (.5, .9).

    Example:

        >>> critic_adam(critic_network(2, hidden=[4]).parameters()).defaults["lr"]
        0.0001
    """
    parameters = list(parameters)
    fused = all(parameter.device.type in ("cpu", "cuda") for parameter in parameters)
    return torch.optim.Adam(parameters, lr=1e-4, betas=(0.5, 0.9), fused=fused)
