"""Optimizer factories, and learning rates that change with the training step."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from ppvae.engine.player import Optimizer


@dataclass(frozen=True)
class Scheduled:
    """An optimizer factory with a schedule of its learning rate.

    Args:
        make: parameters -> torch optimizer.
        schedule: step -> factor on the learning rate of each parameter group; None keeps the rate.

    Example:

        >>> factory = Scheduled(partial(torch.optim.SGD, lr=0.1), schedule=lambda step: 0.99**step)
        >>> factory([nn.Parameter(torch.zeros(()))]).param_groups[0]["lr"]
        0.1
    """

    make: Optimizer
    schedule: Callable[[int], float] | None = None

    def __call__(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return self.make(parameters)


def adam(lr: float = 1e-3, schedule: Callable[[int], float] | None = None, **options: Any) -> Scheduled:
    """Factory of Adam with its update fused into one kernel.

    Args:
        lr: learning rate.
        schedule: step -> factor on the learning rate.
        options: of ``torch.optim.Adam``.

    Example:

        >>> adam(1e-3, schedule=lambda step: min(1.0, step / 1000), betas=(0.9, 0.99)).schedule(500)
        0.5
    """
    return Scheduled(partial(_adam, lr=lr, **options), schedule)


def _adam(parameters: Iterable[nn.Parameter], **options: Any) -> torch.optim.Adam:
    parameters = list(parameters)
    fused = all(parameter.device.type in ("cpu", "cuda") for parameter in parameters)
    return torch.optim.Adam(parameters, **{"fused": fused, **options})


def schedule_of(optimizer: Optimizer) -> Callable[[int], float] | None:
    """The schedule of an optimizer factory; None if it has none."""
    return getattr(optimizer, "schedule", None)
