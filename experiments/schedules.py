"""Learning-rate schedules of the experiments: functions of the training step that return a factor on the rate."""

import math
from collections.abc import Callable

Schedule = Callable[[int], float]


def steps_of(epochs: int, rows: int, batch_size: int) -> int:
    """The steps of a training: each epoch leaves out an incomplete last minibatch, and has at least one step."""
    return epochs * max(1, rows // batch_size)


def half_cosine(steps: int) -> Schedule:
    """From 1 to 0 in that many steps, on half a period of a cosine."""
    return lambda step: 0.5 * (1 + math.cos(math.pi * step / steps))


def linear(steps: int) -> Schedule:
    """From 1 to 0 in that many steps, on a line."""
    return lambda step: 1 - step / steps


def staircase(lengths: list[int], steps_per_epoch: int) -> Schedule:
    """10^(-i / (n - 1)) in stage i of n, where stage i has ``lengths[i]`` epochs."""
    stage_of_epoch = [stage for stage, length in enumerate(lengths) for _ in range(length)]

    def factor(step: int) -> float:
        epoch = min(step // steps_per_epoch, len(stage_of_epoch) - 1)
        return 10 ** (-stage_of_epoch[epoch] / (len(lengths) - 1))

    return factor
