"""Which rows keep their labels."""

import operator

import torch

from ppvae.data.dataset import Dataset
from ppvae.errors import DataError


def hide_labels(data: Dataset, num_labels: int, seed: int = 0) -> Dataset:
    """The data with ``num_labels`` labels, the same number in each class; the others become unknown (-1).

    Args:
        data: a data set with labels and a number of classes. Labels that are unknown already stay so.
        num_labels: labels to keep, a multiple of the number of classes; 0 hides all.
        seed: chooses the rows; the same seed chooses the same rows.

    Raises:
        DataError: the number is no such multiple, or a class has too few rows.

    Example:

        >>> data = Dataset(torch.zeros(6, 2), torch.tensor([0, 1, 0, 1, 0, 1]), num_classes=2)
        >>> hide_labels(data, 2).y.tolist()
        [-1, -1, -1, -1, 0, 1]
    """
    if data.y is None or data.num_classes is None:
        absent = "labels" if data.y is None else "num_classes"
        raise DataError(f"expected data with labels and num_classes, got no {absent}; use Dataset(x, y, num_classes=C)")
    labels = data.y.cpu()
    rows = torch.bincount(labels[labels >= 0], minlength=data.num_classes)
    per_class = _per_class(num_labels, data.num_classes, int(rows.min()))
    generator = torch.Generator().manual_seed(seed)
    kept = torch.full_like(labels, -1)
    for label in range(data.num_classes):
        of_class = (labels == label).nonzero().squeeze(1)
        kept[of_class[torch.randperm(len(of_class), generator=generator)[:per_class]]] = label
    return data.with_labels(kept)


def _per_class(num_labels: int, classes: int, fewest: int) -> int:
    try:
        per_class, rest = divmod(operator.index(num_labels), classes)
    except TypeError as error:
        raise DataError(f"expected num_labels to be a whole number, got {num_labels!r}") from error
    if rest or not 0 <= per_class <= fewest:
        near = sorted({classes * min(max(choice, 1), fewest) for choice in (per_class, per_class + 1)})
        raise DataError(
            f"expected num_labels to be a multiple of the {classes} classes from 0 to {fewest * classes} (the smallest "
            f"class has {fewest} rows), got {num_labels}; ask for {' or '.join(map(str, near))}"
        )
    return per_class
