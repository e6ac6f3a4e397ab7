"""Images that are made or read when they are indexed, where the whole set would not fit into memory."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from ppvae.data.factors import Factors

ROWS = 256  # made at once: what they need in between stays in a core's cache


class LazyImages(ABC):
    """A stand-in for a uint8 tensor of shape (N, *event_shape), as the ``x`` of a :class:`~ppvae.data.Dataset`.

    Indexing is that of a tensor along its first dimension, by a slice, an index of any shape or a mask, and gives
    a tensor on ``device``: x[index] has shape (*index.shape, *event_shape). A row out of range is an IndexError; on
    CUDA it is the device's assertion, as of any tensor there, after which the process cannot use the device.

    A subclass sets ``shape`` and ``device`` and says how rows are made (:meth:`_read`) and moved (:meth:`to`); and
    ``factors``, where it holds one row for each combination of them.
    """

    shape: torch.Size
    device: torch.device
    dtype = torch.uint8
    factors: Factors | None = None

    @abstractmethod
    def _read(self, index: Tensor) -> Tensor:
        """Rows ``index``, long (n,), from -N to N - 1, as uint8 (n, *event_shape)."""

    @abstractmethod
    def to(self, device) -> "LazyImages":
        """The same images on another device."""

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index) -> Tensor:
        index = self._rows(index)
        images = torch.cat([self._read(part) for part in index.reshape(-1).split(ROWS)])
        return images.reshape(*index.shape, *self.shape[1:])

    def dim(self) -> int:
        return len(self.shape)

    def is_floating_point(self) -> bool:
        return False

    def _rows(self, index) -> Tensor:
        if isinstance(index, slice):
            rows = range(len(self))[index]
            return torch.arange(rows.start, rows.start + len(rows) * rows.step, rows.step, device=self.device)
        if isinstance(index, tuple) or index is None or index is Ellipsis:
            raise IndexError(f"expected one index, of rows, got {index!r}; go on in the tensor that it gives")
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
    """Images of two values, 0 and 255, that are held as one bit a pixel.

    Args:
        bits: uint8, shape (N, H * W / 8): the pixels of an image row by row, as ``numpy.packbits`` lays them.
        event_shape: (H, W), a multiple of 8 pixels.
    """

    def __init__(self, bits: Tensor, event_shape: tuple[int, ...]):
        self.bits, self.device = bits, bits.device
        self.shape = torch.Size((len(bits), *event_shape))
        self._places = torch.arange(7, -1, -1, device=bits.device, dtype=torch.uint8)
        if bits.dtype != torch.uint8 or bits.shape[1:].numel() * 8 != self.shape[1:].numel():
            raise ValueError(f"expected uint8 of an eighth of {event_shape} a row, got {bits.dtype} {bits.shape}")

    def to(self, device) -> "PackedImages":
        return PackedImages(self.bits.to(device), tuple(self.shape[1:]))

    def _read(self, index: Tensor) -> Tensor:
        pixels = (self.bits[index][..., None] >> self._places) & 1
        return pixels.mul_(255).reshape(len(index), *self.shape[1:])


class MappedImages(LazyImages):
    """Images in a file, of which only what is used is read from the disk.

    Args:
        array: uint8, shape (N, *event_shape), over a memory map.
    """

    def __init__(self, array: Tensor):
        if array.dtype != torch.uint8:
            raise ValueError(f"expected uint8, got {array.dtype}")
        self.array, self.shape, self.device = array, array.shape, array.device

    def to(self, device) -> "MappedImages":
        """The same images; on another device than the CPU they are held there whole."""
        return MappedImages(self.array.to(device))

    def part(self, rows: slice) -> "MappedImages":
        """Some of the rows, still in the file."""
        return MappedImages(self.array[rows])

    def _read(self, index: Tensor) -> Tensor:
        return self.array[index]
