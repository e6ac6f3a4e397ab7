"""The two losses of a generator and its adversary: logistic, and Wasserstein with a gradient penalty.

Both read a network D of one number a datum, samples x of the data and samples x' of the generator.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ppvae.engine.isolation import frozen
from ppvae.errors import ContractError
from ppvae.nn.functional import softplus
from ppvae.objectives.base import Parts


class Game(Protocol):
    """What an adversary and a generator minimise.

    Example:

        >>> game: Game = Logistic()
        >>> game.of_generator(nn.Linear(2, 1), torch.zeros(3, 2)).shape
        torch.Size([])
    """

    adversary: str

    def of_adversary(self, network: nn.Module, real: Tensor, generated: Tensor) -> Parts:
        """The loss of D by named parts, scalars, from as many data as samples."""

    def of_generator(self, network: nn.Module, generated: Tensor) -> Tensor:
        """The loss of the generator, a scalar. It gives no gradient to D."""


@dataclass(frozen=True)
class Logistic:
    """D is a classifier, log-odds that x is of the data; the generator's loss is the non-saturating one.

        discriminator   E softplus(-D(x)) + E softplus(D(x'))           generator   E softplus(-D(x'))

    Source: Goodfellow et al. 2014, "Generative Adversarial Nets".

    Example:

        >>> Logistic().of_adversary(nn.Linear(2, 1), torch.zeros(3, 2), torch.zeros(3, 2)).keys()
        dict_keys(['data', 'samples'])
    """

    adversary = "discriminator"

    def of_adversary(self, network: nn.Module, real: Tensor, generated: Tensor) -> Parts:
        """Cross-entropies, in nats: of the data and of the samples, 2 log 2 in all where D cannot tell them apart."""
        return {
            "data": softplus(-score(network, real)).mean(),
            "samples": softplus(score(network, generated.detach())).mean(),
        }

    def of_generator(self, network: nn.Module, generated: Tensor) -> Tensor:
        """E softplus(-D(x')), the cross-entropy of taking the samples for data, in nats."""
        with frozen(network):
            return softplus(-score(network, generated)).mean()


@dataclass(frozen=True)
class Wasserstein:
    """D is a critic with gradients of norm 1; E D(x) - E D(x') estimates the Wasserstein distance.

        critic   E D(x') - E D(x) + penalty E (|grad D(x^)| - 1)^2,   x^ uniform between x and x'
        generator   - E D(x')

    The penalty is of each datum, so that D may not mix the data of a batch.

    Attributes:
        penalty: weight of the gradient penalty.

    Source: Gulrajani et al. 2017, "Improved Training of Wasserstein GANs".

    Example:

        >>> Wasserstein().of_adversary(nn.Linear(2, 1), torch.zeros(3, 2), torch.zeros(3, 2)).keys()
        dict_keys(['distance', 'gradient_penalty'])
    """

    penalty: float = 10.0
    adversary = "critic"

    def of_adversary(self, network: nn.Module, real: Tensor, generated: Tensor) -> Parts:
        """Minus the estimate of the distance, and the penalty."""
        generated = generated.detach()
        distance = score(network, real).mean() - score(network, generated).mean()
        return {"distance": -distance, "gradient_penalty": self.penalty * gradient_penalty(network, real, generated)}

    def of_generator(self, network: nn.Module, generated: Tensor) -> Tensor:
        """- E D(x')."""
        with frozen(network):
            return -score(network, generated).mean()


def score(network: nn.Module, x: Tensor) -> Tensor:
    """D(x), (B, *event_shape) -> (B,). Raises ContractError unless the network gives (B,) or (B, 1).

    Example:

        >>> score(nn.Linear(2, 1), torch.zeros(3, 2)).shape
        torch.Size([3])
    """
    output = network(x)
    if output.shape not in ((len(x),), (len(x), 1)):
        raise ContractError(
            f"expected a discriminator of one number a datum, of shape ({len(x)},) or ({len(x)}, 1), got "
            f"{tuple(output.shape)}; end it with nn.Linear(features, 1)"
        )
    return output.reshape(-1)


def gradient_penalty(network: nn.Module, real: Tensor, generated: Tensor) -> Tensor:
    """E (|grad D(x^)| - 1)^2, a scalar, with x^ = u x + (1 - u) x', u ~ U(0, 1) for each of B pairs (x, x').

    Its gradient reaches the parameters of D, and neither x nor x'. The norm is over all elements of a datum.

    Example:

        >>> line = nn.Linear(2, 1)
        >>> line.weight.data = torch.tensor([[3.0, 4.0]])
        >>> gradient_penalty(line, torch.zeros(5, 2), torch.ones(5, 2)).item()
        16.0
    """
    share = torch.rand(len(real), *[1] * (real.dim() - 1), dtype=real.dtype, device=real.device)
    with torch.enable_grad():
        between = (share * real + (1 - share) * generated).detach().requires_grad_()
        (slope,) = torch.autograd.grad(score(network, between).sum(), between, create_graph=True)
    return (slope.flatten(1).norm(dim=1) - 1).square().mean()


def require_no_batch_norm(network: nn.Module) -> None:
    """Raise ContractError if a layer of a critic normalises over the batch: the penalty is of each datum.

    Example:

        >>> require_no_batch_norm(nn.Linear(2, 1))
        >>> require_no_batch_norm(nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1)))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ppvae.errors.ContractError: expected a critic without batch normalisation, got BatchNorm1d...
    """
    found: list[Any] = [part for part in network.modules() if isinstance(part, _BatchNorm)]
    if found:
        raise ContractError(
            f"expected a critic without batch normalisation, got {type(found[0]).__name__}: the gradient penalty is of "
            "each datum, which must not depend on the others; use nn.LayerNorm or none"
        )
