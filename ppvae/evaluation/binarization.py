"""Data without random binarization, for evaluators with one result a datum: predictions, codes."""

from typing import Any

from ppvae.data import Dataset
from ppvae.engine.batch import Array, Batch, HasBatch, as_batch


def most_probable(data: Dataset, index: Any = slice(None)) -> Batch:
    """The rows at ``index``; of dynamically binarized data at their most probable binarization.

    Example:

        >>> import torch
        >>> data = Dataset(torch.tensor([[0.2, 0.9]]), binarization="dynamic")
        >>> most_probable(data).x
        tensor([[0., 1.]])
    """
    given = {name: column[index] for name, column in data.given.items()}
    return as_batch(data.most_probable(index), data.labels(index), given)


def fixed(data: Batch | HasBatch | Array) -> Batch | HasBatch | Array:
    """A data set at its most probable binarization; other data as they are.

    Example:

        >>> import torch
        >>> fixed(Dataset(torch.tensor([[0.2, 0.9]]), binarization="dynamic")).x, fixed(torch.tensor([[0.2]]))
        (tensor([[0., 1.]]), tensor([[0.2000]]))
    """
    return most_probable(data) if isinstance(data, Dataset) else data
