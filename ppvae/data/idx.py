"""Arrays in the IDX format of MNIST and similar data sets."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import torch
from torch import Tensor

from ppvae.data.files import damaged, is_file

_UINT8 = 0x08  # the format's code of the type


def idx_file(file: Path) -> Path | None:
    """The file, or the same file with ``.gz``; None if neither exists.

    Example:

        >>> idx_file(Path("absent-idx1-ubyte")) is None
        True
    """
    packed = file.with_name(f"{file.name}.gz")
    return file if is_file(file) else packed if is_file(packed) else None


def read_idx(file: Path, shape: tuple[int, ...]) -> Tensor:
    """A uint8 array of a given shape from an IDX file, compressed by gzip if its name ends in ``.gz``.

    The file starts with two zero bytes, the type, the number of dimensions, and each dimension as a big-endian 32-bit
    integer. At most as many bytes are read as the shape needs, also where the header states more.

    Raises:
        DataError: the file is damaged or holds an array of another form.

    Example:

        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "labels-idx1-ubyte")
        ...     _ = file.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))
        ...     read_idx(file, (3,))
        tensor([7, 2, 1], dtype=torch.uint8)
    """
    again = "remove it to download it again"
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            header = stream.read(4 + 4 * len(shape))
            if header != struct.pack(f">HBB{len(shape)}I", 0, _UINT8, len(shape), *shape):
                raise damaged(file, f"expected a header of uint8 {shape}, got {_described(header)}", again)
            content = stream.read(math.prod(shape) + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise damaged(file, error, again) from error
    if len(content) != math.prod(shape):
        raise damaged(file, f"expected {math.prod(shape)} bytes after its header, got {len(content)}", again)
    return torch.frombuffer(bytearray(content), dtype=torch.uint8).reshape(shape)


def _described(header: bytes) -> str:
    if len(header) < 8 or header[:3] != bytes((0, 0, _UINT8)):
        return repr(header[:8])
    sides = len(header) // 4 - 1
    return f"{header[3]} dimensions {struct.unpack(f'>{sides}I', header[4 : 4 + 4 * sides])}"
