"""Hiding labels: balanced classes, the same rows for the same seed, numbers that can be asked for."""

import re

import numpy as np
import pytest
import torch

from ppvae.data import Dataset, hide_labels, load
from ppvae.errors import DataError


@pytest.fixture(scope="module")
def digits():
    return load("digits").train


@pytest.mark.parametrize("num_labels", [0, 10, 100, np.int64(100)])
def test_hide_labels_keeps_equal_numbers(digits, num_labels):
    kept = hide_labels(digits, num_labels, seed=3)
    known = kept.y >= 0
    assert known.sum() == num_labels
    assert torch.bincount(kept.y[known], minlength=10).tolist() == [num_labels // 10] * 10
    assert (kept.y[known] == digits.y[known]).all()
    assert torch.equal(hide_labels(digits, num_labels, seed=3).y, kept.y)
    assert len(kept.rows_by_label()[0]) == num_labels


def test_hide_labels_keeps_other_rows_for_another_seed(digits):
    assert not torch.equal(hide_labels(digits, 100, 0).y, hide_labels(digits, 100, 1).y)


def test_hide_labels_keeps_conditions_and_binarization(digits):
    data = Dataset(digits.x, digits.y, num_classes=10, levels=256, binarization="dynamic", angle=torch.zeros(1000))
    hidden = hide_labels(data, 10)
    assert (list(hidden.given), hidden.binarization) == (["angle"], "dynamic")


def uneven():
    """Three classes of 2, 5 and 3 rows, and a row without a label."""
    y = torch.tensor([0] * 2 + [1] * 5 + [2] * 3 + [-1])
    return Dataset(torch.zeros(11, 1), y, num_classes=3)


def test_hide_labels_leaves_unknown_labels_unknown():
    assert hide_labels(uneven(), 6).y[-1] == -1


@pytest.mark.parametrize(
    ("num_labels", "message"),
    [
        (7, r"multiple of the 3 classes from 0 to 6 \(the smallest class has 2 rows\), got 7; ask for 6$"),
        (5, "got 5; ask for 3 or 6$"),
        (1, "got 1; ask for 3$"),
        (-3, "got -3; ask for 3$"),
        (9, "got 9; ask for 6$"),
        (3.0, "num_labels to be a whole number, got 3.0"),
        ("3", "num_labels to be a whole number, got '3'"),
    ],
)
def test_hide_labels_names_numbers_that_it_takes(num_labels, message):
    with pytest.raises(DataError, match=message) as raised:
        hide_labels(uneven(), num_labels)
    for advised in re.findall(r"\d+", str(raised.value).partition("ask for ")[2]):
        assert (hide_labels(uneven(), int(advised)).y >= 0).sum() == int(advised)


def test_hide_labels_names_the_most_that_the_smallest_class_allows(digits):
    fewest = int(torch.bincount(digits.y).min())
    with pytest.raises(DataError, match=f"from 0 to {10 * fewest} .*got 1030; ask for {10 * fewest}$"):
        hide_labels(digits, 1030)
    assert (hide_labels(digits, 10 * fewest).y >= 0).sum() == 10 * fewest


def test_hide_labels_of_a_class_without_rows():
    data = Dataset(torch.zeros(2, 1), torch.tensor([0, 0]), num_classes=2)
    with pytest.raises(DataError, match=r"from 0 to 0 \(the smallest class has 0 rows\), got 2; ask for 0"):
        hide_labels(data, 2)


def test_hide_labels_requires_labels_and_their_number():
    x, y = torch.zeros(2, 1), torch.tensor([0, 1])
    with pytest.raises(DataError, match=r"got no labels; use Dataset\(x, y, num_classes=C\)"):
        hide_labels(Dataset(x), 2)
    with pytest.raises(DataError, match="got no num_classes"):
        hide_labels(Dataset(x, y), 2)
