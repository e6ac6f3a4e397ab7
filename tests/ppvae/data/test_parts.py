"""Training, validation and test parts."""

import numpy as np
import pytest
import torch

from ppvae.data.lazy import MappedImages
from ppvae.data.parts import hold_out, with_test_among, with_test_apart
from ppvae.errors import DataError

X, Y = torch.arange(20)[:, None].byte(), torch.arange(20)


def test_hold_out_divides_the_rows():
    parts = hold_out(X, Y, np.int64(5))
    assert [len(x) for x, _ in parts.values()] == [15, 5]
    assert torch.cat([y for _, y in parts.values()]).sort().values.tolist() == list(range(20))
    for x, y in parts.values():
        assert torch.equal(x[:, 0].long(), y)
    again = hold_out(X, Y, 5)
    assert torch.equal(again["train"][1], parts["train"][1])
    assert parts["validation"][1].tolist() != list(range(15, 20))


def test_hold_out_of_the_last_rows_stays_in_the_file():
    parts = hold_out(MappedImages(X), None, 5, shuffled=False)
    assert all(isinstance(x, MappedImages) for x, _ in parts.values())
    assert parts["validation"][0][:].flatten().tolist() == list(range(15, 20))


def test_hold_out_of_no_rows_has_no_validation_part():
    parts = hold_out(X, None, 0)
    assert list(parts) == ["train"]
    assert len(parts["train"][0]) == 20


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (20, "hold out at most 19 rows, got 20"),
        (-1, "at least 0, got -1"),
        (2.5, "the rows to hold out to be a whole number, got 2.5"),
    ],
)
def test_hold_out_refuses_other_numbers(rows, message):
    with pytest.raises(DataError, match=message):
        hold_out(X, Y, rows)


def test_with_test_apart_shares_no_row():
    (x, y), (test, labels) = with_test_apart(X, Y, 4)
    assert sorted([*y.tolist(), *labels.tolist()]) == list(range(20))
    assert (len(x), len(test)) == (16, 4)


def test_with_test_among_tests_on_training_rows():
    (x, _), (test, _) = with_test_among(X, 4)
    assert torch.equal(x, X)
    assert test.unique().numel() == 4
