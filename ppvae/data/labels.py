"""Choosing which rows keep their labels."""

from dataclasses import replace

import torch

from ppvae.data.dataset import Dataset
from ppvae.errors import DataError


def hide_labels(data: Dataset, num_labels: int, seed: int = 0) -> Dataset:
    """Keep ``num_labels`` labels, the same number in each class, and make the others unknown (-1).

    Args:
        data: a data set whose labels are all known.
        num_labels: labels to keep, a multiple of the number of classes.
        seed: chooses the rows; the same seed chooses the same rows.

    Raises DataError if a class has fewer rows than it should keep labels.
    """
    if data.y is None or data.num_classes is None:
        raise DataError("expected data with labels and a number of classes, got none")
    per_class, rest = divmod(num_labels, data.num_classes)
    if num_labels < 0 or rest:
        raise DataError(
            f"expected a number of labels that is a multiple of the {data.num_classes} classes, got {num_labels}; "
            f"the nearest below is {max(0, num_labels - rest)}"
        )
    generator = torch.Generator().manual_seed(seed)
    labels = data.y.cpu()
    kept = torch.full_like(labels, -1)
    for label in range(data.num_classes):
        rows = (labels == label).nonzero().squeeze(1)
        if len(rows) < per_class:
            raise DataError(
                f"expected at least {per_class} rows of class {label} for {num_labels} labels, got {len(rows)}; "
                f"ask for at most {len(rows) * data.num_classes}"
            )
        kept[rows[torch.randperm(len(rows), generator=generator)[:per_class]]] = label
    return replace(data, y=kept.to(data.y.device))
