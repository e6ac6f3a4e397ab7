"""The errors of ppvae: what they can be caught as, and the check of counts."""

import numpy as np
import pytest
import torch

from ppvae import errors
from ppvae.errors import require_count, require_positive

BUILT_IN = {
    errors.ContractError: ValueError,
    errors.DataError: ValueError,
    errors.CheckpointError: RuntimeError,
    errors.DeviceError: RuntimeError,
    errors.NonFiniteLossError: FloatingPointError,
}


@pytest.mark.parametrize("error", BUILT_IN, ids=lambda error: error.__name__)
def test_errors_are_caught_as_ppvaes_own_and_as_pythons(error):
    for kind in (errors.PpvaeError, BUILT_IN[error]):
        with pytest.raises(kind, match="the reason"):
            raise error("the reason")


def test_every_error_of_the_module_is_listed_here():
    found = {each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.PpvaeError)}
    assert found == {errors.PpvaeError, *BUILT_IN}


def test_interrupted_is_not_caught_as_an_exception():
    stopped = errors.Interrupted("stopped by SIGTERM", 15)
    assert isinstance(stopped, KeyboardInterrupt)
    assert not isinstance(stopped, Exception)
    assert (str(stopped), stopped.signal_number) == ("stopped by SIGTERM", 15)


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), torch.tensor(3)])
def test_require_count_gives_whole_numbers_of_every_kind_as_int(value):
    count = require_count("epochs", value)
    assert type(count) is int
    assert count == 3


@pytest.mark.parametrize("value", [0, -1, np.int64(0), False])
def test_require_count_refuses_numbers_below_one(value):
    with pytest.raises(ValueError, match=f"expected epochs of at least 1, got {int(value)}"):
        require_count("epochs", value)


@pytest.mark.parametrize("value", [1.0, "3", None, np.float64(2.0), [3]])
def test_require_count_refuses_what_is_no_whole_number(value):
    with pytest.raises(TypeError, match="expected epochs to be a whole number, got "):
        require_count("epochs", value)


@pytest.mark.parametrize(("value", "error"), [(0.0, ValueError), (float("nan"), ValueError), ("a", TypeError)])
def test_require_positive_refuses_other_values(value, error):
    with pytest.raises(error, match="expected scale"):
        require_positive("scale", value)


def test_require_positive_gives_a_float():
    assert require_positive("scale", 2) == 2.0
