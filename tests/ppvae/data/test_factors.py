"""Factors: the row of a combination and the combination of a row."""

import numpy as np
import pytest
import torch

from ppvae.data import Factors
from ppvae.errors import DataError

GRID = Factors(("a", "b", "c"), (3, 1, 4))


def test_values_of_the_last_factor_vary_fastest():
    assert len(GRID) == 12
    assert GRID.values(torch.arange(6)).tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 2], [0, 0, 3], [1, 0, 0], [1, 0, 1]]


def test_index_is_the_inverse_of_values():
    rows = torch.randperm(len(GRID), generator=torch.Generator().manual_seed(0)).reshape(2, 2, 3)
    values = GRID.values(rows)
    assert values.shape == (2, 2, 3, 3)
    assert values.dtype == torch.long
    assert torch.equal(GRID.index(values), rows)


def test_values_and_index_of_no_rows_are_empty():
    assert GRID.values(torch.empty(0, dtype=torch.long)).shape == (0, 3)
    assert GRID.index(torch.empty(0, 3, dtype=torch.long)).shape == (0,)


def test_factors_makes_lists_tuples():
    grid = Factors(["a", "b", "c"], np.array([3, 1, 4]))
    assert grid == GRID
    assert hash(grid) == hash(GRID)
    assert all(type(size) is int for size in grid.sizes)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Factors(("a",), (2, 3)), "a name and a size"),
        (lambda: Factors((), ()), "a name and a size"),
        (lambda: Factors(("a",), (0,)), "above 0"),
        (lambda: Factors(("a", "b"), (2, 2.5)), r"to be whole numbers, got \(2, 2.5\)"),
        (lambda: Factors(("a",), 3), "to be whole numbers, got 3"),
        (lambda: Factors("ab", (2, 3)), "a sequence of names, got 'ab'"),
        (lambda: Factors((1, "b"), (2, 3)), "a sequence of names"),
        (lambda: Factors(("a", "a"), (2, 3)), "different names of factors"),
        (lambda: GRID.values(torch.tensor([12])), "from 0 to 11, got 12 to 12"),
        (lambda: GRID.values(torch.tensor([-1, 3])), "got -1 to 3"),
        (lambda: GRID.index(torch.tensor([0, 1, 0])), "below"),
        (lambda: GRID.index(torch.tensor([0, 0, -1])), "below"),
        (lambda: GRID.index(torch.tensor([0, 0])), r"shape \(\.\.\., 3\)"),
        (lambda: GRID.index(torch.tensor([0.5, 0, 0])), "long"),
    ],
)
def test_factors_refuses_other_names_sizes_and_rows(make, message):
    with pytest.raises(DataError, match=message):
        make()
