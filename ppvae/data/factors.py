"""The ground-truth factors of data that were made from them, one image for each combination."""

import math
import operator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Factors:
    """A complete grid of factors: each combination once, row n the n-th of them, the last factor varying fastest.

    Args:
        names: of the factors, F of them, no two alike.
        sizes: the number of values of each. Lists are made tuples.

    A combination is a row of F indices ("factor values") from 0 to size - 1.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        try:
            sizes = tuple(operator.index(size) for size in self.sizes)
        except TypeError as error:
            raise ValueError(f"expected whole numbers as sizes of factors, got {self.sizes!r}") from error
        if isinstance(self.names, str) or not all(isinstance(name, str) for name in self.names):
            raise ValueError(f"expected a sequence of names of factors, got {self.names!r}")
        names = tuple(self.names)
        if not names or len(names) != len(sizes) or min(sizes) < 1:
            raise ValueError(f"expected a name and a size above 0 for each factor, got {names}, {sizes}")
        if len(set(names)) < len(names):
            raise ValueError(f"expected another name for each factor, got {names}")
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "sizes", sizes)

    def __len__(self) -> int:
        """Number of combinations, N."""
        return math.prod(self.sizes)

    def values(self, index: Tensor) -> Tensor:
        """The factor values of rows, long: (...) -> (..., F)."""
        if index.numel() and not (int(index.min()) >= 0 and int(index.max()) < len(self)):
            raise ValueError(f"expected rows from 0 to {len(self) - 1}, got {int(index.min())} to {int(index.max())}")
        return torch.stack(torch.unravel_index(index, self.sizes), -1)

    def index(self, values: Tensor) -> Tensor:
        """The rows of factor values, long: (..., F) -> (...)."""
        sizes = torch.tensor(self.sizes, device=values.device)
        if values.shape[-1:] != sizes.shape or values.dtype != torch.long or ((values < 0) | (values >= sizes)).any():
            raise ValueError(f"expected long factor values of shape (..., {len(sizes)}) from 0 on, below {self.sizes}")
        strides = torch.tensor([math.prod(self.sizes[i + 1 :]) for i in range(len(sizes))], device=values.device)
        return (values * strides).sum(-1)
