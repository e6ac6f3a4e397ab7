"""Data without randomness of their own."""

import pytest
import torch

from ppvae.data import Dataset
from ppvae.evaluation.binarization import fixed, most_probable

GREY = torch.tensor([[0.2, 0.9], [0.6, 0.5], [1.0, 0.0]])


def test_most_probable_rounds_dynamically_binarized_data():
    data = Dataset(GREY, binarization="dynamic")
    assert most_probable(data).x.tolist() == [[0, 1], [1, 0], [1, 0]]
    assert torch.equal(most_probable(data).x, most_probable(data).x)


def test_most_probable_keeps_missing_elements_missing():
    data = Dataset(torch.tensor([[0.2, torch.nan], [0.7, 0.9]]), binarization="dynamic")
    torch.testing.assert_close(most_probable(data).x, torch.tensor([[0, torch.nan], [1, 1]]), equal_nan=True)


def test_most_probable_leaves_other_data_as_they_are():
    assert torch.equal(most_probable(Dataset(GREY)).x, GREY)


@pytest.mark.parametrize("index", [slice(1, 3), torch.tensor([2, 0]), torch.tensor([True, False, True])])
def test_most_probable_takes_labels_and_conditions_of_the_same_rows(index):
    y, age = torch.tensor([0, 1, 2]), torch.tensor([10.0, 20.0, 30.0])
    batch = most_probable(Dataset(GREY, y, binarization="dynamic", age=age), index)
    assert torch.equal(batch.x, (GREY > 0.5)[index].float())
    assert torch.equal(batch.y, y[index])
    assert torch.equal(batch.given["age"], age[index])


def test_fixed_binarizes_data_sets_and_gives_back_anything_else():
    assert fixed(Dataset(GREY, binarization="dynamic")).x.tolist() == [[0, 1], [1, 0], [1, 0]]
    assert fixed(GREY) is GREY
    batch = Dataset(GREY).batch()
    assert fixed(batch) is batch
