"""Conversion of other kinds of data to a data set, with an error that names the remedy."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils import data as torch_data

from ppvae.data.dataset import Dataset, Splits
from ppvae.data.lazy import LazyImages
from ppvae.engine.batch import Batch
from ppvae.errors import DataError


def as_dataset(data: Any, name: str = "data") -> Dataset:
    """A data set from whatever holds the same columns.

    Args:
        data: a :class:`Dataset`, which is returned as it is; a tensor, a numpy array or :class:`LazyImages` of shape
            (N, *event_shape); a :class:`~ppvae.engine.batch.Batch`; or a ``torch.utils.data.TensorDataset`` of x, or
            of x and integer labels.
        name: what the error calls the argument.

    Raises:
        DataError: the data are of another kind; the message says how to convert them.

    Example:

        >>> import torch
        >>> as_dataset(torch.zeros(5, 3))
        Dataset('data', 5 rows of shape (3,))
        >>> as_dataset([1.0, 2.0])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        ppvae.errors.DataError: expected data to be a Dataset, a tensor or a numpy array, got list; stack its rows: ...
    """
    if isinstance(data, Dataset):
        return data
    if isinstance(data, Tensor | np.ndarray | LazyImages):
        return Dataset(data)
    if isinstance(data, Batch):
        return Dataset(data.x, data.y, **dict[str, Any](data.given))
    if isinstance(data, torch_data.TensorDataset) and len(data.tensors) <= 2:
        return Dataset(*data.tensors)
    raise DataError(
        f"expected {name} to be a Dataset, a tensor or a numpy array, got {type(data).__name__}; {_remedy(data, name)}"
    )


def _remedy(data: Any, name: str) -> str:
    if isinstance(data, Splits):
        return f"pass one part of it, e.g. {name}.train"
    if isinstance(data, torch_data.DataLoader):
        return "batches are made from the whole set: pass the tensors behind the loader, e.g. Dataset(x, y)"
    if isinstance(data, torch_data.TensorDataset):
        return "name the columns: Dataset(x, y, condition=...)"
    if hasattr(data, "data") and hasattr(data, "targets"):  # as torchvision's
        return f"pass Dataset({name}.data, {name}.targets), the grey values 0..255 as uint8"
    if isinstance(data, torch_data.Dataset):
        return f"stack its rows: Dataset(torch.stack([row[0] for row in {name}]))"
    if isinstance(data, str | Path):
        return 'load it first: ppvae.data.load("mnist").train, or ppvae.data.image_folder(path)'
    if hasattr(data, "to_numpy"):  # as pandas'
        return f"pass {name}.to_numpy()"
    if isinstance(data, tuple):
        return "pass Dataset(x, y) for data and labels"
    if isinstance(data, Sequence):
        return f"stack its rows: torch.stack({name}) of tensors, torch.tensor({name}) of numbers"
    return "convert it, e.g. by torch.as_tensor"
