"""Data of other kinds: converted, or refused with what to pass."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils import data as torch_data

from ppvae.data import Dataset, Splits, Sprites, as_dataset
from ppvae.engine.batch import as_batch
from ppvae.errors import DataError

X = torch.arange(6.0).reshape(3, 2)


def test_as_dataset_returns_a_data_set_as_it_is():
    data = Dataset(X)
    assert as_dataset(data) is data


@pytest.mark.parametrize("data", [X, X.numpy(), X.double().numpy(), torch_data.TensorDataset(X)])
def test_as_dataset_takes_x(data):
    converted = as_dataset(data)
    assert torch.equal(converted.x, X)
    assert converted.y is None


def test_as_dataset_takes_lazy_images():
    assert len(as_dataset(Sprites(8))) == 737_280


def test_as_dataset_takes_x_and_labels_of_a_tensor_dataset():
    data = as_dataset(torch_data.TensorDataset(X, torch.tensor([0, 1, -1])))
    assert data.y.tolist() == [0, 1, -1]


def test_as_dataset_takes_a_batch_with_its_conditions():
    data = as_dataset(as_batch(X, torch.tensor([0, 1, -1]), {"angle": torch.zeros(3)}))
    assert (data.y.tolist(), list(data.given)) == ([0, 1, -1], ["angle"])


class Rows(torch_data.Dataset):
    def __len__(self):
        return 3

    def __getitem__(self, row):
        return X[row]


class Targets(Rows):
    data, targets = X, torch.zeros(3)


class Frame:
    def to_numpy(self):
        return X.numpy()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Splits(Dataset(X), Dataset(X)), "got Splits; pass one part of it, e.g. train.train"),
        (torch_data.DataLoader(X), r"got DataLoader; .*pass the tensors behind the loader, e.g. Dataset\(x, y\)"),
        (torch_data.TensorDataset(X, X, X), r"got TensorDataset; name the columns: Dataset\(x, y, condition=...\)"),
        (torch_data.TensorDataset(X, X[:, 0]), "integers from 0, .*pass a real-valued condition by a name of its own"),
        (Rows(), r"got Rows; stack its rows: Dataset\(torch.stack\(\[row\[0\] for row in train\]\)\)"),
        (Targets(), r"got Targets; pass Dataset\(train.data, train.targets\)"),
        ([X[0], X[1]], r"got list; stack its rows: torch.stack\(train\)"),
        ((X, torch.zeros(3)), r"got tuple; pass Dataset\(x, y\)"),
        ("mnist", r"got str; load it first: ppvae.data.load\(.mnist.\).train"),
        (Path("folder"), "image_folder"),
        (Frame(), r"got Frame; pass train.to_numpy\(\)"),
        (None, "got NoneType; convert it"),
        (iter([X]), "got list_iterator; convert it"),
        (np.array(["a"]), "real numbers"),
    ],
)
def test_as_dataset_says_what_to_pass(data, message):
    with pytest.raises(DataError, match=message):
        as_dataset(data, "train")
