"""The ground-truth factors of data that hold one row for each combination of them."""

import math
import operator
from dataclasses import dataclass

import torch
from torch import Tensor

from ppvae.errors import DataError


@dataclass(frozen=True)
class Factors:
    """A complete grid of F factors: each combination is one row, and the last factor varies fastest.

    A combination is a row of F indices ("factor values") from 0 to size - 1.

    Args:
        names: of the factors, all different.
        sizes: the number of values of each. Lists become tuples.

    Raises:
        DataError: names and sizes do not fit together.

    Example:

        >>> grid = Factors(("shape", "angle"), (2, 3))
        >>> len(grid), grid.values(torch.tensor([0, 1, 5])).tolist()
        (6, [[0, 0], [0, 1], [1, 2]])
        >>> grid.index(torch.tensor([1, 2]))
        tensor(5)
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        try:
            sizes = tuple(operator.index(size) for size in self.sizes)
        except TypeError as error:
            raise DataError(f"expected the sizes of factors to be whole numbers, got {self.sizes!r}") from error
        if isinstance(self.names, str) or not all(isinstance(name, str) for name in self.names):
            raise DataError(f"expected a sequence of names, got {self.names!r}")
        names = tuple(self.names)
        if not names or len(names) != len(sizes) or min(sizes) < 1:
            raise DataError(f"expected a name and a size above 0 for each factor, got {names}, {sizes}")
        if len(set(names)) < len(names):
            raise DataError(f"expected different names of factors, got {names}")
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "sizes", sizes)

    def __len__(self) -> int:
        """Number of combinations, N."""
        return math.prod(self.sizes)

    def values(self, index: Tensor) -> Tensor:
        """The factor values of rows, long: (...) -> (..., F). Raises DataError for a row out of range."""
        if index.numel() and not (int(index.min()) >= 0 and int(index.max()) < len(self)):
            raise DataError(f"expected rows from 0 to {len(self) - 1}, got {int(index.min())} to {int(index.max())}")
        return torch.stack(torch.unravel_index(index, self.sizes), -1)

    def index(self, values: Tensor) -> Tensor:
        """The rows of factor values, long: (..., F) -> (...). Raises DataError for a value out of range."""
        sizes = torch.tensor(self.sizes, device=values.device)
        if values.shape[-1:] != sizes.shape or values.dtype != torch.long or ((values < 0) | (values >= sizes)).any():
            raise DataError(f"expected long factor values of shape (..., {len(sizes)}) from 0 on, below {self.sizes}")
        strides = torch.tensor([math.prod(self.sizes[i + 1 :]) for i in range(len(sizes))], device=values.device)
        return (values * strides).sum(-1)
