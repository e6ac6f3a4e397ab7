"""Columns: conversion from numpy, labels, conditions, grey levels, missing elements."""

import warnings

import numpy as np
import pytest
import torch

from ppvae.data import MappedImages, Sprites
from ppvae.data.columns import (
    as_column,
    as_conditions,
    as_labels,
    grey_levels,
    has_missing,
    require_binary,
    require_within,
    whole_number,
)
from ppvae.errors import DataError


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble, ">f4", ">f8"])
def test_as_column_makes_numpy_floats_the_default_type(dtype):
    column = as_column(np.arange(6).reshape(2, 3).astype(dtype), "x")
    assert column.dtype == torch.float32
    assert torch.equal(column, torch.arange(6.0).reshape(2, 3))


def test_as_column_follows_the_default_type_of_torch():
    torch.set_default_dtype(torch.float64)
    try:
        assert as_column(np.full(2, 0.1), "x").tolist() == [0.1, 0.1]
    finally:
        torch.set_default_dtype(torch.float32)


def test_as_column_keeps_the_type_of_a_tensor():
    for dtype in (torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.bool):
        tensor = torch.zeros(3).to(dtype)
        assert as_column(tensor, "x").dtype == dtype


@pytest.mark.parametrize("dtype", [np.uint16, ">u2", np.uint32, np.uint64])
def test_as_column_makes_wide_unsigned_integers_signed(dtype):
    column = as_column(np.array([[0, 65_535]], dtype), "x")
    assert column.tolist() == [[0, 65_535]]
    assert column.dtype in (torch.int32, torch.int64)
    assert as_column(torch.tensor([65_535], dtype=torch.uint16), "x").dtype == torch.int32


def test_as_column_takes_any_layout_of_an_array():
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    read_only = array.copy()
    read_only.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for view in (array[::-1, ::2], array.T, np.asfortranarray(array), read_only):
            assert torch.equal(as_column(view, "x"), torch.tensor(view.tolist()))


def test_as_column_shares_the_memory_of_a_float32_array():
    array = np.zeros((2, 2), np.float32)
    as_column(array, "x")[0, 0] = 1
    assert array[0, 0] == 1


def test_as_column_detaches():
    assert not as_column(torch.zeros(2, requires_grad=True), "x").requires_grad


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1.0, 2.0], "x to be a tensor or a numpy array, got list; convert it"),
        (None, "got NoneType"),
        (np.array(["a"]), "real numbers, got an array of <U1"),
        (np.array([1 + 2j]), "got an array of complex128"),
        (np.array([None]), "got an array of object"),
        (np.array(["2020-01-01"], "datetime64[D]"), "got an array of datetime64"),
        (np.ma.masked_array([1.0, 2.0], [True, False]), r"masked array; .*array.filled\(numpy.nan\)"),
        (torch.zeros(2, dtype=torch.complex64), "dense tensor of real numbers, got torch.strided of torch.complex64"),
        (torch.zeros(2).to_sparse(), "dense tensor .*got torch.sparse_coo"),
    ],
)
def test_as_column_refuses_other_objects(value, message):
    with pytest.raises(DataError, match=message):
        as_column(value, "x")


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32, torch.uint8, torch.bool, torch.uint16])
def test_as_labels_converts_integers(dtype):
    labels = as_labels(torch.tensor([0, 1, 1]).to(dtype), 3, 2)
    assert labels.dtype == torch.long
    assert labels.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("y", "classes", "message"),
    [
        (torch.zeros(3), None, "class indices, integers .*got torch.float32; pass a real-valued condition by a name"),
        (np.array([0.5, 1, 2]), None, "got torch.float32; pass a real-valued"),
        (torch.tensor([0, 1]), None, r"y of shape \(3,\), one label a row of x, got \(2,\)$"),
        (torch.tensor([[0], [1], [0]]), None, r"got \(3, 1\)"),
        (torch.eye(3).long(), None, r"got \(3, 3\); of one-hot rows take y.argmax\(1\)"),
        (torch.tensor([0, 1, 2]), 2, "labels from 0 to 1, or -1 where unknown, got 0 to 2, the first outside in row 2"),
        (torch.tensor([0, -2, 1]), 2, "got -2 to 1, the first outside in row 1"),
        (torch.tensor([0, -2, 1]), None, "from 0 to the number of classes less 1, .*in row 1"),
    ],
)
def test_as_labels_refuses_what_is_no_class_index(y, classes, message):
    with pytest.raises(DataError, match=message) as raised:
        as_labels(y, 3, classes)
    assert "y.long()" not in str(raised.value)


def test_as_conditions_keeps_integers_and_converts_arrays():
    given = as_conditions({"age": np.array([1.5, 2.5]), "kind": torch.tensor([3, 4])}, 2)
    assert (given["age"].dtype, given["kind"].dtype) == (torch.float32, torch.long)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"age": torch.zeros(3)}, r"condition 'age' to have 2 rows, one a row of x, got shape \(3,\)"),
        ({"age": torch.tensor(1.0)}, r"got shape \(\)"),
        ({"step": torch.zeros(2)}, "identifier that is not reserved, got 'step'; rename it"),
        ({"given": {"age": torch.zeros(2)}}, r"got 'given'; .*Dataset\(x, y, \*\*conditions\)"),
        ({"num_particles": torch.zeros(2)}, "got 'num_particles'"),
        ({"class": torch.zeros(2)}, "got 'class'"),
        ({"the age": torch.zeros(2)}, "got 'the age'"),
        (
            {"binarisation": "dynamic"},
            "condition 'binarisation' to be a tensor .*got str; .*binarization,",
        ),
        ({"age": [1.0, 2.0]}, "condition 'age' .*got list"),
        ({"age": torch.tensor([0.0, torch.inf])}, "in condition 'age', got infinity first in row 1"),
    ],
)
def test_as_conditions_refuses_other_columns_and_names(given, message):
    with pytest.raises(DataError, match=message):
        as_conditions(given, 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_has_missing_finds_nan(dtype):
    x = torch.zeros(4, 3, dtype=dtype)
    assert not has_missing(x, "x")
    x[2, 1] = torch.nan
    assert has_missing(x, "x")


@pytest.mark.parametrize("infinity", [torch.inf, -torch.inf])
@pytest.mark.parametrize("other", [0.0, torch.nan])
def test_has_missing_refuses_infinity_with_its_row(infinity, other):
    x = torch.zeros(4, 3)
    x[0, 0], x[3, 1] = other, infinity
    with pytest.raises(DataError, match="in x, got infinity first in row 3"):
        has_missing(x, "x")


def test_has_missing_refuses_data_without_any_element():
    with pytest.raises(DataError, match="at least one element that is not NaN"):
        has_missing(torch.full((2, 2), torch.nan), "x")


def test_has_missing_of_integers_or_empty_rows_is_false():
    assert not has_missing(torch.zeros(2, 2, dtype=torch.long), "x")
    assert not has_missing(torch.zeros(2, 0), "x")


def test_require_within_names_the_value_in_full_and_its_row():
    x = torch.zeros(5, 2)
    x[3, 1] = 1 + 1.2e-7
    with pytest.raises(DataError, match=r"in \[0, 1\] to binarize, got 1.00000012 in row 3; rescale"):
        require_within(x, 0, 1, "to binarize", "rescale")
    x[3, 1] = torch.nan
    require_within(x, 0, 1, "to binarize", "rescale")


def test_require_binary_allows_black_white_and_missing():
    require_binary(torch.tensor([[0.0, 1.0], [torch.nan, 1.0]]), None)
    require_binary(torch.tensor([[0, 255]], dtype=torch.uint8), 256)
    with pytest.raises(DataError, match=r"only 0 and 1 .*got 0.5 in row 1; use Dataset\(...\).binarized\(seed\)"):
        require_binary(torch.tensor([[0.0], [0.5]]), None)
    with pytest.raises(DataError, match=r"only 0 and 255 .*got 1 in row 0"):
        require_binary(torch.tensor([[1, 255]], dtype=torch.uint8), 256)


def of_highest(value, dtype=torch.uint8):
    return torch.tensor([[0, value]], dtype=dtype)


def test_grey_levels_of_types_that_tell_their_scale():
    assert grey_levels(of_highest(255), None) == 256
    assert grey_levels(of_highest(128), None) == 256
    assert grey_levels(of_highest(1, torch.bool), None) == 2
    assert grey_levels(torch.full((1, 2), 255.0), None) is None


@pytest.mark.parametrize("highest", [0, 1, 16, 63, 127])
def test_grey_levels_refuses_bytes_of_unclear_scale(highest):
    white = max(highest, 1)
    with pytest.raises(DataError, match=f"got {highest} at most, .*levels=256 .*={white + 1} if white is {white}"):
        grey_levels(of_highest(highest), None)
    for levels in (256, white + 1):
        assert grey_levels(of_highest(highest), levels) == levels


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.int64])
def test_grey_levels_of_other_integers_are_stated(dtype):
    with pytest.raises(DataError, match=f"got {dtype}; state the number of grey levels, e.g. levels=65536"):
        grey_levels(of_highest(255, dtype), None)
    assert grey_levels(of_highest(255, dtype), 1024) == 1024


@pytest.mark.parametrize(
    ("x", "levels", "message"),
    [
        (torch.tensor([[0], [17]], dtype=torch.uint8), 17, r"values in \[0, 16\] for levels=17, got 17 in row 1"),
        (torch.tensor([[0], [-1]]), 17, "got -1 in row 1"),
        (of_highest(255), 1, "levels to be a whole number of at least 2, got 1"),
        (of_highest(255), 256.0, "levels to be a whole number, got 256.0"),
        (of_highest(1, torch.bool), 256, "levels 2 for x of torch.bool, got 256"),
        (torch.zeros(1, 2), 256, "levels only for integer x, got levels=256 for torch.float32"),
    ],
)
def test_grey_levels_refuses_levels_that_do_not_fit(x, levels, message):
    with pytest.raises(DataError, match=message):
        grey_levels(x, levels)


def test_grey_levels_of_lazy_images_come_from_rows_spread_over_the_set():
    array = torch.ones(1000, 2, dtype=torch.uint8)
    with pytest.raises(DataError, match="got 1 at most, so the value of white is unclear"):
        grey_levels(MappedImages(array), None)
    assert grey_levels(MappedImages(array), 2) == 2
    array[960:] = 255
    assert grey_levels(MappedImages(array), None) == 256
    with pytest.raises(DataError, match="got 255 in row 960"):
        grey_levels(MappedImages(array), 2)


def test_grey_levels_that_lazy_images_state_need_no_rows(monkeypatch):
    monkeypatch.setattr(Sprites, "_read", lambda self, index: pytest.fail("a row was made"))
    assert grey_levels(Sprites(16), None) == 256


@pytest.mark.parametrize("value", [2.0, "2", None, torch.tensor(2.5)])
def test_whole_number_refuses_other_types(value):
    with pytest.raises(DataError, match="expected epochs to be a whole number, got"):
        whole_number(value, "epochs", at_least=1)


def test_whole_number_has_a_least_value():
    assert whole_number(np.int64(1), "epochs", at_least=1) == 1
    for value in (0, True):
        with pytest.raises(DataError, match="at least 1"):
            whole_number(value, "epochs", at_least=1)
