"""Numbers that change with the training step: functions of it, so that nothing counts."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from ppvae.engine.particles import Particles
from ppvae.errors import ContractError

Schedule = Callable[[int], float]


@dataclass(frozen=True)
class Ramp:
    """From ``start`` at step 0 to ``end`` at step ``steps``, and ``end`` after it."""

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        if self.steps < 1 or not math.isfinite(self.start) or not math.isfinite(self.end):
            raise ValueError(f"expected finite numbers and at least 1 step, got {self}")

    def __call__(self, step: int) -> float:
        return self.start + (self.end - self.start) * min(step / self.steps, 1.0)


def warm_up(steps: int, end: float = 1.0) -> Ramp:
    """From 0 to ``end`` over so many steps: the weight of a KL at the start of training.

    Source: Bowman et al. 2016, "Generating Sentences from a Continuous Space"; Sonderby et al. 2016.
    """
    return Ramp(0.0, end, steps)


def now(value: float | Schedule, particles: Particles) -> float:
    """A number, or a schedule's value at the step of these particles. Raises ContractError for one below 0 or not
    finite, and where the step is not known."""
    if not callable(value):
        return value
    if particles.step is None:
        raise ContractError(
            "expected the training step that a schedule is a function of, got none; fit gives it, and a loss takes it: "
            "svi.step(x, step=i), objective.loss(model, guide, x, step=i)"
        )
    number = value(particles.step)
    if not 0 <= number < math.inf:
        raise ContractError(
            f"expected a schedule of finite numbers of at least 0, got {number} at step {particles.step}"
        )
    return number


def least(value: float | Schedule) -> float:
    """The least that a weight can come to: of a schedule that is no ramp nothing is known, so 0."""
    return min(value.start, value.end) if isinstance(value, Ramp) else 0.0 if callable(value) else value


def require_weight(name: str, value: float | Schedule) -> None:
    """Raise ValueError for a constant, or an end of a ramp, that is below 0 or not finite."""
    for one in (value.start, value.end) if isinstance(value, Ramp) else () if callable(value) else (value,):
        if not 0 <= one < math.inf:
            raise ValueError(f"expected {name} of at least 0, got {one}")
