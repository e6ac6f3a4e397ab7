"""The check of every row of a data set against the model."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from ppvae.data import Dataset, LazyImages
from ppvae.data.lazy import spread
from ppvae.engine.batch import Batch
from ppvae.engine.checks import likelihood_of
from ppvae.engine.data_checks import check_event_shape, check_label_range, check_support

AT_ONCE = 2**23  # numbers checked at once, 32 MB as float32


def check_rows(model: Any, data: Dataset) -> None:
    """Raise ContractError unless the likelihood and the classes of the model take every row.

    Of images that are made or read when they are indexed, rows spread over the whole set are checked. Call it in
    evaluation mode.

    Example:

        >>> import torch
        >>> from ppvae.models import LinearGaussian
        >>> check_rows(LinearGaussian(torch.eye(2), torch.zeros(2)), Dataset(torch.zeros(8, 2)))
    """
    first = data.batch(slice(0, 1))
    if data.y is not None:
        check_label_range(model, Batch(first.x, data.y, first.given))
    likelihood = likelihood_of(model, first)
    check_event_shape(likelihood, first.x)
    if data.binarization != "dynamic" or data.has_missing:
        for start, x in _blocks(data):
            check_support(likelihood, x, first_row=start)


def _blocks(data: Dataset) -> Iterator[tuple[int, Tensor]]:
    """The number of the first row and the grey values of each of several parts."""
    every = spread(data.x).step if isinstance(data.x, LazyImages) else 1
    step = every * max(1, AT_ONCE // max(1, data.x.shape[1:].numel()))
    for start in range(0, len(data), step):
        yield start, data.grey(slice(start, start + step, every))
