"""Weights that change during training, as functions of the training step."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import SupportsFloat

from ppvae.errors import ContractError

Schedule = Callable[[int], float]


@dataclass(frozen=True)
class Ramp:
    """A schedule that is linear from ``start`` at step 0 to ``end`` at step ``steps``, and constant afterwards.

    Args:
        start: value at step 0, finite.
        end: value from step ``steps`` on, finite.
        steps: length of the ramp, at least 1.

    Raises ValueError for other arguments.

    Example:

        >>> import ppvae
        >>> from ppvae.objectives.schedules import Ramp
        >>> ramp = Ramp(1.0, 0.0, steps=4)
        >>> [ramp(step) for step in (0, 1, 4, 100)]
        [1.0, 0.75, 0.0, 0.0]
    """

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        if not self.steps >= 1 or not math.isfinite(self.start) or not math.isfinite(self.end):
            raise ValueError(f"expected a finite start and end and at least 1 step, got {self}")

    def __call__(self, step: int) -> float:
        return self.start + (self.end - self.start) * min(step / self.steps, 1.0)


def warm_up(steps: int, end: float = 1.0) -> Ramp:
    """A ramp from 0 to ``end`` over ``steps`` steps, for the weight of a KL at the start of training.

    Source: Bowman et al. 2016, "Generating Sentences from a Continuous Space"; Sonderby et al. 2016, "Ladder
    Variational Autoencoders".

    Example:

        >>> import ppvae
        >>> from ppvae.objectives.schedules import warm_up
        >>> warm_up(100)(25)
        0.25
    """
    return Ramp(0.0, end, steps)


def value_at(value: float | Schedule, step: int | None) -> float:
    """A constant as it is; a schedule's value at a training step.

    Raises ContractError where a schedule has no step, or its value is below 0 or not finite.

    Example:

        >>> import ppvae
        >>> from ppvae.objectives.schedules import value_at, warm_up
        >>> value_at(3.0, None), value_at(warm_up(100), 25)
        (3.0, 0.25)
    """
    if not callable(value):
        return value
    if step is None:
        raise ContractError(
            "expected the training step, which a schedule is a function of, got none; fit passes it, otherwise call "
            "svi.step(x, step=i) or objective.loss(model, guide, x, step=i)"
        )
    number = value(step)
    if not isinstance(number, SupportsFloat) or isinstance(number, str) or not 0 <= float(number) < math.inf:
        raise ContractError(f"expected a schedule of finite numbers of at least 0, got {number} at step {step}")
    return number


def require_weight(name: str, value: float | Schedule) -> None:
    """Raise ValueError if a constant, or an end of a :class:`Ramp`, is below 0 or not finite.

    Example:

        >>> import ppvae
        >>> from ppvae.objectives.schedules import require_weight
        >>> require_weight("gamma", -1.0)
        Traceback (most recent call last):
        ValueError: expected gamma of at least 0, got -1.0
    """
    constants = (value.start, value.end) if isinstance(value, Ramp) else () if callable(value) else (value,)
    for constant in constants:
        if not isinstance(constant, SupportsFloat) or isinstance(constant, str):
            raise TypeError(f"expected {name} to be a number or a schedule, got {constant!r:.60}")
        if not 0 <= float(constant) < math.inf:
            raise ValueError(f"expected {name} of at least 0, got {constant}")
