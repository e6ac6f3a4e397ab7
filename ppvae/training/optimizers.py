"""Optimizer factories, and learning rates that change with the training step."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from pyro.optim import PyroOptim
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
    """The schedule of an optimizer factory; None if it has none.

    Example:

        >>> schedule_of(torch.optim.Adam) is None, schedule_of(adam(1e-3, schedule=lambda step: 0.5))(0)
        (True, 0.5)
    """
    return getattr(optimizer, "schedule", None)


def make_optimizer(factory: Optimizer, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer that a factory makes. Raises TypeError if it is no factory, or makes something else, or LBFGS.

    Example:

        >>> type(make_optimizer(torch.optim.Adam, nn.Linear(1, 1).parameters())).__name__
        'Adam'
    """
    optimizer = check_optimizer(factory)(list(parameters))
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"expected the optimizer's function to return a torch optimizer, got {kind_of(optimizer)}")
    check_optimizer(type(optimizer))
    return optimizer


def check_optimizer(optimizer: Any) -> Optimizer:
    """An optimizer factory. Raises TypeError for an optimizer that exists already, and for a name or a number.

    Example:

        >>> check_optimizer(torch.optim.Adam) is torch.optim.Adam
        True
    """
    lbfgs = torch.optim.LBFGS
    if optimizer is lbfgs or getattr(optimizer, "func", None) is lbfgs or isinstance(optimizer, lbfgs):
        raise TypeError(
            "expected an optimizer that needs one gradient per step, got LBFGS, which evaluates the loss again; use "
            "ppvae.adam(1e-3)"
        )
    if isinstance(optimizer, torch.optim.Optimizer | PyroOptim) or not callable(optimizer):
        raise TypeError(
            f"expected optimizer to be a function parameters -> torch optimizer, got {kind_of(optimizer)}; use "
            "ppvae.adam(1e-3), or lambda parameters: torch.optim.SGD(parameters, lr=0.1)"
        )
    return optimizer


def kind_of(value: Any) -> str:
    """A value as messages name it: a number or a string itself, else its type.

    Example:

        >>> kind_of("adam"), kind_of(nn.Linear(1, 1))
        ("'adam'", 'Linear of torch')
    """
    if isinstance(value, str | int | float) or value is None:
        return repr(value)
    if isinstance(value, type):
        return f"the class {value.__name__}"
    module = type(value).__module__.split(".")[0]
    of = "" if module in ("builtins", "__main__") else f" of {module}"
    return f"{type(value).__name__}{of}"
