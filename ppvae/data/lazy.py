"""Images that are made or read when they are indexed, for sets that do not fit into memory."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from ppvae.data.factors import Factors
from ppvae.errors import DataError

ROWS = 256  # made at once: their intermediate results stay in a core's cache
SPREAD_ROWS = 10_000


class LazyImages(ABC):
    """Grey values that take the place of a uint8 tensor of shape (N, *event_shape) as x of a :class:`Dataset`.

    An index is that of a tensor along its first dimension: a slice, an index of any shape or a mask. x[index] is a
    tensor on ``device`` of shape (*index.shape, *event_shape). A row out of range raises IndexError; on CUDA it fails
    the device's assertion, as for any tensor, and the process cannot use the device any more.

    A subclass sets ``shape`` and ``device``, and defines how rows are made (:meth:`_read`) and moved (:meth:`to`). It
    sets ``factors`` if it holds one row for each combination of them, and ``levels`` to the number of grey levels (256
    if white is 255); without ``levels``, a :class:`Dataset` judges them by some of the rows.

    Example:

        >>> class Ramp(LazyImages):
        ...     shape, device = torch.Size((256, 2)), torch.device("cpu")
        ...     def _read(self, index):
        ...         return index[:, None].expand(-1, 2).to(torch.uint8)
        ...     def to(self, device):
        ...         return self
        >>> Ramp()[1:3]
        tensor([[1, 1],
                [2, 2]], dtype=torch.uint8)
    """

    shape: torch.Size
    device: torch.device
    dtype = torch.uint8
    factors: Factors | None = None
    levels: int | None = None

    @abstractmethod
    def _read(self, index: Tensor) -> Tensor:
        """Rows ``index``, long (n,), from -N to N - 1, as uint8 (n, *event_shape)."""

    @abstractmethod
    def to(self, device: torch.device | str) -> "LazyImages":
        """The same images on another device."""

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Tensor:
        index = self._rows(index)
        images = torch.cat([self._read(part) for part in index.reshape(-1).split(ROWS)])
        return images.reshape(*index.shape, *self.shape[1:])

    def dim(self) -> int:
        """The number of dimensions, as of a tensor."""
        return len(self.shape)

    def is_floating_point(self) -> bool:
        """False: the images are uint8."""
        return False

    def _rows(self, index: Any) -> Tensor:
        if isinstance(index, slice):
            rows = range(len(self))[index]
            return torch.arange(rows.start, rows.start + len(rows) * rows.step, rows.step, device=self.device)
        if isinstance(index, tuple) or index is None or index is Ellipsis:
            raise IndexError(f"expected one index, of rows, got {index!r}; index the resulting tensor further")
        index = torch.as_tensor(index, device=self.device)
        if index.dtype == torch.bool and index.shape == (len(self),):
            return index.nonzero().squeeze(1)
        if index.numel() and index.dtype not in (torch.int64, torch.int32):
            raise IndexError(
                f"expected a slice, a long index or a mask of {len(self)} rows, got {index.dtype} of shape "
                f"{tuple(index.shape)}"
            )
        return index.long()


class PackedImages(LazyImages):
    """Images of two values, 0 and 255, stored as one bit a pixel.

    Args:
        bits: uint8, shape (N, H * W / 8): the pixels of an image row by row, in the order of ``numpy.packbits``.
        event_shape: (H, W), a multiple of 8 pixels.

    Raises:
        DataError: bits and shape do not fit together.

    Example:

        >>> PackedImages(torch.tensor([[0b11000001]], dtype=torch.uint8), (2, 4))[0]
        tensor([[255, 255,   0,   0],
                [  0,   0,   0, 255]], dtype=torch.uint8)
    """

    levels = 256

    def __init__(self, bits: Tensor, event_shape: tuple[int, ...]):
        self.bits, self.device = bits, bits.device
        self.shape = torch.Size((len(bits), *event_shape))
        self._places = torch.arange(7, -1, -1, device=bits.device, dtype=torch.uint8)
        if bits.dtype != torch.uint8 or bits.shape[1:].numel() * 8 != self.shape[1:].numel():
            raise DataError(
                f"expected uint8 bits of shape (N, H * W / 8) for images of {event_shape}, got {bits.dtype} of shape "
                f"{tuple(bits.shape)}"
            )

    def to(self, device: torch.device | str) -> "PackedImages":
        """The same images on another device."""
        return PackedImages(self.bits.to(device), tuple(self.shape[1:]))

    def _read(self, index: Tensor) -> Tensor:
        pixels = (self.bits[index][..., None] >> self._places) & 1
        return pixels.mul_(255).reshape(len(index), *self.shape[1:])


class MappedImages(LazyImages):
    """Images in a file, read from the disk as they are used.

    Args:
        array: uint8, shape (N, *event_shape), over a memory map.

    Raises:
        DataError: the array is not uint8.

    Example:

        >>> images = MappedImages(torch.arange(6, dtype=torch.uint8).reshape(3, 2))
        >>> images[torch.tensor([2, 0])]
        tensor([[4, 5],
                [0, 1]], dtype=torch.uint8)
    """

    def __init__(self, array: Tensor):
        if array.dtype != torch.uint8:
            raise DataError(f"expected a uint8 array, got {array.dtype}")
        self.array, self.shape, self.device = array, array.shape, array.device

    def to(self, device: torch.device | str) -> "MappedImages":
        """The same images; on a device other than the CPU all of them are held in its memory."""
        return MappedImages(self.array.to(device))

    def part(self, rows: slice) -> "MappedImages":
        """Some of the rows, still in the file."""
        return MappedImages(self.array[rows])

    def _read(self, index: Tensor) -> Tensor:
        return self.array[index]


def spread(x: LazyImages) -> slice:
    """At most ``SPREAD_ROWS`` rows, spread over all.

    Example:

        >>> from ppvae.data.sprites import Sprites
        >>> len(range(737_280)[spread(Sprites())]) <= SPREAD_ROWS
        True
    """
    return slice(None, None, -(-len(x) // SPREAD_ROWS))
