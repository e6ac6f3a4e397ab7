"""Files of data: where they are, whether they are complete, arrays in archives, arrays too large for memory.

The header of a file is compared with the expected form before its content is read, so that a wrong or
malicious file costs neither memory nor time.
"""

import hashlib
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch

from ppvae.data.lazy import MappedImages
from ppvae.errors import DataError

_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # those that numpy writes


def data_root(root: str | Path | None = None) -> Path:
    """The folder of data: ``root``, else ``$PPVAE_DATA``, else ``~/.cache/ppvae``; ``~`` is the home folder.

    Example:

        >>> data_root("here")
        PosixPath('here')
    """
    return Path(root or os.environ.get("PPVAE_DATA") or "~/.cache/ppvae").expanduser()


def damaged(file: Path, reason: object, remedy: str = "put a complete copy in its place") -> DataError:
    """The error for a file that cannot be read, because of an exception or another reason.

    Example:

        >>> print(damaged(Path("x.npz"), "expected 3 bytes, got 2"))
        x.npz is damaged (expected 3 bytes, got 2); put a complete copy in its place
    """
    said = f"{type(reason).__name__}: {reason}" if isinstance(reason, Exception) else reason
    return DataError(f"{file} is damaged ({said}); {remedy}")


def is_file(file: Path) -> bool:
    """Whether the file is there. Raises DataError for a folder, a pipe or a device: reading a pipe can block for ever.

    Example:

        >>> is_file(Path("absent.npz"))
        False
    """
    if file.is_file():
        return True
    if file.exists() or file.is_symlink():
        raise DataError(f"expected {file} to be a regular file, got a folder, a pipe, a device or a broken link")
    return False


@dataclass(frozen=True)
class PublishedFile:
    """A file that a person downloads.

    Args:
        name: of the file, in the folder of data.
        md5: of its bytes.
        source: where to get it.

    Example:

        >>> PublishedFile("a.npz", "0" * 32, "https://example.org/a").path(Path("absent"))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        ppvae.errors.DataError: a.npz is not in absent. Get it from https://example.org/a and put it there, ...
    """

    name: str
    md5: str
    source: str

    def path(self, root: Path) -> Path:
        """The file in ``root``. Raises DataError if it is absent or has another checksum."""
        file = root / self.name
        if not is_file(file):
            raise DataError(
                f"{self.name} is not in {root}. Get it from {self.source} and put it there, or set PPVAE_DATA to a "
                "folder that has it"
            )
        with file.open("rb") as content:
            found = hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if found != self.md5:
            raise DataError(
                f"{file} is damaged or another file (md5 {found}, expected {self.md5}); get it again from {self.source}"
            )
        return file


@contextmanager
def open_member(
    file: Path, name: str, shape: tuple[int, ...], dtype: type = np.uint8
) -> Iterator[tuple[IO[bytes], bool]]:
    """An array of an ``.npz`` archive as a stream of its elements, and whether they are in column-major order.

    Args:
        file: the archive.
        name: of the array.
        shape: that the array must have.
        dtype: that the array must have.

    Raises:
        DataError: the archive is damaged, or the array has another form, which its header tells.

    Example:

        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp(), "a.npz")
        >>> np.savez(file, x=np.arange(3, dtype=np.uint8))
        >>> with open_member(file, "x", (3,)) as (stream, by_column):
        ...     list(stream.read())
        [0, 1, 2]
    """
    try:
        with zipfile.ZipFile(file) as archive:
            member = archive.getinfo(f"{name}.npy")
            if member.compress_type not in _COMPRESSIONS:
                raise ValueError(f"{name} is compressed by method {member.compress_type}, which numpy does not write")
            with archive.open(member) as stream:
                if np.lib.format.read_magic(stream) != (1, 0):
                    raise ValueError(f"{name} is in another version of numpy's format")
                found, by_column, kind = np.lib.format.read_array_header_1_0(stream)
                if found != shape or kind != dtype:
                    expected = f"{np.dtype(dtype)} {shape}"
                    raise DataError(f"expected `{name}` in {file} as {expected}, got {kind} {found}")
                yield stream, by_column
                if stream.read(1):
                    raise ValueError(f"{name} is longer than its header says")
    except DataError:
        raise
    except Exception as error:  # zip, zlib and numpy raise errors of many kinds
        raise damaged(file, error) from error


def read_member(file: Path, name: str, shape: tuple[int, ...], dtype: type = np.uint8) -> np.ndarray:
    """An array of an ``.npz`` archive; its header is compared with shape and dtype before its content is read.

    ``numpy.load`` allocates the size that the header states: a file of some megabytes can ask for gigabytes.

    Raises:
        DataError: as :func:`open_member`.

    Example:

        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp(), "a.npz")
        >>> np.savez(file, x=np.arange(3, dtype=np.uint8))
        >>> read_member(file, "x", (3,)).tolist()
        [0, 1, 2]
    """
    with open_member(file, name, shape, dtype) as (stream, by_column):
        content = bytearray(stream.read(int(np.prod(shape)) * np.dtype(dtype).itemsize))
        return np.frombuffer(content, dtype).reshape(shape, order="F" if by_column else "C")


def array_on_disk(file: Path, shape: tuple[int, ...], blocks: Callable[[], Iterable[np.ndarray]]) -> MappedImages:
    """A uint8 array, read from the disk row by row as it is used; changes to it stay in memory.

    Args:
        file: a ``.npy`` file; if it is absent it is written.
        shape: of the array.
        blocks: gives the rows from first to last, in uint8 blocks (n, *shape[1:]), to write it. It is called before
            anything is written, and raises DataError where what it reads is absent.

    Raises:
        DataError: the file has another form, or cannot be written.

    Example:

        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp(), "a.npy")
        >>> array_on_disk(file, (2, 3), lambda: [np.zeros((2, 3), np.uint8)])[1]
        tensor([0, 0, 0], dtype=torch.uint8)
    """
    if not is_file(file):
        _write(file, shape, blocks)
    try:
        array = np.lib.format.open_memmap(file, mode="c")
    except Exception as error:
        raise damaged(file, error, "remove it to have it made again") from error
    if array.shape != shape or array.dtype != np.uint8:
        raise DataError(
            f"expected {file} to hold uint8 {shape}, got {array.dtype} {array.shape}; remove it to have it made again"
        )
    return MappedImages(torch.from_numpy(array))


def _write(file: Path, shape: tuple[int, ...], blocks: Callable[[], Iterable[np.ndarray]]) -> None:
    source = blocks()
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with unfinished.open("wb") as out:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(out, header)
            for block in source:
                out.write(np.ascontiguousarray(block).data)
        os.replace(unfinished, file)  # a process that reads at the same time never finds half of it
    except OSError as error:
        raise DataError(
            f"could not write {file}, {np.prod(shape) / 1e9:.1f} GB ({error}); make room, or set PPVAE_DATA to a "
            "folder that can be written to"
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)
