"""What may stand in a column of data, and the type that it becomes."""

import numpy as np
import pytest
import torch

from ppvae.engine.columns import as_column
from ppvae.errors import ContractError, DataError


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (np.float16, torch.float32),
        (np.float32, torch.float32),
        (np.float64, torch.float32),
        (np.longdouble, torch.float32),
        (">f8", torch.float32),
        (np.uint8, torch.uint8),
        (np.int32, torch.int32),
        (">i8", torch.int64),
        (np.uint16, torch.int32),
        (np.uint32, torch.int64),
        (np.uint64, torch.int64),
        (bool, torch.bool),
    ],
)
def test_as_column_converts_arrays_to_types_that_torch_computes_with(dtype, expected):
    column = as_column(np.array([0, 1, 1], dtype), "x")
    assert column.dtype == expected
    assert column.tolist() == [0, 1, 1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.uint8, torch.int32, torch.bool])
def test_as_column_gives_tensors_back_as_they_are(dtype):
    column = torch.zeros(3, dtype=dtype)
    assert as_column(column, "x", dtype=torch.float32) is column


def test_as_column_keeps_the_values_of_large_unsigned_tensors():
    column = as_column(torch.tensor([0, 65535], dtype=torch.uint16), "x")
    assert (column.dtype, column.tolist()) == (torch.int32, [0, 65535])


def test_as_column_gives_floating_arrays_the_type_that_is_asked_for():
    third = np.array([1 / 3])
    assert as_column(third, "x", dtype=torch.float64).item() == 1 / 3
    assert as_column(np.arange(3), "x", dtype=torch.float64).dtype == torch.int64


def test_as_column_shares_the_memory_of_an_array_of_the_right_type():
    array = np.zeros(3, np.float32)
    column = as_column(array, "x")
    array[1] = 5
    assert column.tolist() == [0, 5, 0]


def test_as_column_takes_arrays_that_are_read_only_or_run_backwards():
    array = np.arange(6.0)
    array.flags.writeable = False
    assert as_column(array, "x").tolist() == [0, 1, 2, 3, 4, 5]
    assert as_column(array[::-2], "x").tolist() == [5, 3, 1]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1.0, 2.0], "expected age to be a tensor or a numpy array, got list; convert it"),
        (None, "expected age to be a tensor or a numpy array, got NoneType"),
        (np.array(["a"]), "expected age to hold real numbers, got an array of <U1"),
        (np.array([None]), "expected age to hold real numbers, got an array of object"),
        (np.array([1j]), "expected age to hold real numbers, got an array of complex128"),
        (np.ma.masked_array([1.0], [True]), "expected age without a mask"),
        (torch.tensor([1j]), "expected age to be a dense tensor of real numbers"),
        (torch.eye(2).to_sparse(), "expected age to be a dense tensor of real numbers, got torch.sparse_coo"),
    ],
)
@pytest.mark.parametrize("error", [ContractError, DataError])
def test_as_column_refuses_what_holds_no_real_numbers(value, message, error):
    with pytest.raises(error, match=message):
        as_column(value, "age", error=error)
