"""Schedules: their values by step, and which values a weight may have."""

import math

import pytest

import ppvae
from ppvae.objectives.schedules import Ramp, require_weight, value_at, warm_up


def test_ramp_is_linear_and_then_constant():
    ramp = Ramp(3.0, 1.0, steps=4)
    assert [ramp(step) for step in range(6)] == [3.0, 2.5, 2.0, 1.5, 1.0, 1.0]


def test_warm_up_is_a_ramp_from_zero():
    assert warm_up(10, end=4.0) == Ramp(0.0, 4.0, 10)


@pytest.mark.parametrize(
    ("start", "end", "steps"), [(0.0, 1.0, 0), (0.0, 1.0, math.nan), (math.nan, 1.0, 5), (0.0, math.inf, 5)]
)
def test_ramp_refuses_other_numbers(start, end, steps):
    with pytest.raises(ValueError, match="expected a finite start and end and at least 1 step, got Ramp"):
        Ramp(start, end, steps)


def test_value_at_returns_constants_and_follows_schedules():
    assert value_at(2.5, None) == value_at(2.5, 7) == 2.5
    assert value_at(lambda step: 2.0 * step, 7) == 14.0
    assert value_at(warm_up(10), 5) == 0.5


def test_value_at_refuses_a_schedule_without_a_step():
    with pytest.raises(ppvae.ContractError, match=r"expected the training step.*svi.step\(x, step=i\)"):
        value_at(warm_up(10), None)


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_value_at_refuses_values_that_are_no_weights(value):
    with pytest.raises(ppvae.ContractError, match=f"finite numbers of at least 0, got {value} at step 7"):
        value_at(lambda step: value, 7)


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, Ramp(-1.0, 1.0, 5), Ramp(1.0, -1.0, 5)])
def test_require_weight_refuses_negative_and_infinite_weights(value):
    with pytest.raises(ValueError, match="expected gamma of at least 0, got"):
        require_weight("gamma", value)


def test_require_weight_takes_weights_and_schedules():
    for value in (0.0, 3.0, Ramp(0.0, 1.0, 5), lambda step: -1.0):  # a function is checked at each step
        require_weight("gamma", value)
