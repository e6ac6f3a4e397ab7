"""Hamiltonian Monte Carlo over many chains at once, each of which accepts or rejects on its own.

Source: Neal 2011, "MCMC using Hamiltonian Dynamics", section 5.2.
"""

from collections.abc import Callable

import torch
from torch import Tensor

LogDensity = Callable[[Tensor], Tensor]


def hmc_step(log_density: LogDensity, u: Tensor, step_size: Tensor, leapfrog_steps: int) -> tuple[Tensor, Tensor]:
    """One transition that leaves exp(log_density) invariant.

    Args:
        log_density: (chains, B, D) -> (chains, B), in nats.
        u: positions, shape (chains, B, D).
        step_size: of the leapfrog, broadcast with (chains, B).
        leapfrog_steps: number of steps of one transition.

    Returns the new positions, and whether each chain moved, shape (chains, B). A proposal with an energy that is not
    finite is rejected.

    Example:

        >>> _ = torch.manual_seed(0)
        >>> normal = lambda u: -0.5 * u.square().sum(-1)
        >>> u, accepted = hmc_step(normal, torch.zeros(100, 3, 2), torch.tensor(0.5), leapfrog_steps=3)
        >>> u.shape, accepted.float().mean() > 0.9
        (torch.Size([100, 3, 2]), tensor(True))
    """
    step = step_size.unsqueeze(-1)
    momentum = torch.randn_like(u)
    density, gradient = with_gradient(log_density, u)
    start = density - 0.5 * momentum.square().sum(-1)
    proposal, velocity = u, momentum
    for _ in range(leapfrog_steps):
        velocity = velocity + 0.5 * step * gradient
        proposal = proposal + step * velocity
        density, gradient = with_gradient(log_density, proposal)
        velocity = velocity + 0.5 * step * gradient
    log_ratio = density - 0.5 * velocity.square().sum(-1) - start
    accepted = (torch.rand_like(log_ratio).log() < log_ratio) & density.isfinite()  # False where the ratio is NaN
    return torch.where(accepted.unsqueeze(-1), proposal, u), accepted


def with_gradient(log_density: LogDensity, u: Tensor) -> tuple[Tensor, Tensor]:
    """log_density(u) and its gradient, of the shapes (chains, B) and (chains, B, D), neither with a graph.

    Example:

        >>> with_gradient(lambda u: -0.5 * u.square().sum(-1), torch.ones(1, 1, 2))
        (tensor([[-1.]]), tensor([[[-1., -1.]]]))
    """
    with torch.enable_grad():
        u = u.detach().requires_grad_()
        density = log_density(u)
        (gradient,) = torch.autograd.grad(density.sum(), u)
    return density.detach(), gradient
