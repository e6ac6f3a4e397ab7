"""Files of data: where they lie, whether they are whole, and arrays too large for memory."""

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ppvae.data.lazy import MappedImages
from ppvae.errors import DataError


def data_root(root: str | Path | None = None) -> Path:
    """The folder of data: ``root``, else ``$PPVAE_DATA``, else ``~/.cache/ppvae``; ``~`` is the home folder."""
    return Path(root or os.environ.get("PPVAE_DATA") or "~/.cache/ppvae").expanduser()


def damaged(file: Path, reason) -> DataError:
    """The error for a file that cannot be read; of an exception, with its kind."""
    said = f"{type(reason).__name__}: {reason}" if isinstance(reason, Exception) else reason
    return DataError(f"{file} is damaged ({said}); put a whole copy in its place")


@dataclass(frozen=True)
class PublishedFile:
    """A file that a person fetches.

    Args:
        name: of the file, in the folder of data.
        md5: of its bytes.
        source: where to get it.
    """

    name: str
    md5: str
    source: str

    def path(self, root: Path) -> Path:
        """The whole file in ``root``. Raises DataError where it is absent or its checksum is another."""
        file = root / self.name
        if not file.is_file():
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


def array_on_disk(file: Path, shape: tuple[int, ...], blocks: Callable[[], Iterable[np.ndarray]]) -> MappedImages:
    """A uint8 array of which only what is used is read from the disk; changes to it stay in memory.

    Args:
        file: a ``.npy`` file; where it is absent it is written.
        shape: of the array.
        blocks: gives the rows from first to last, in uint8 blocks (n, *shape[1:]), to write it. It is called before
            anything is written, and raises DataError where what it reads is absent.

    Raises DataError where the file is of another form, or cannot be written.
    """
    if not file.exists():
        _write(file, shape, blocks)
    try:
        array = np.load(file, mmap_mode="c", allow_pickle=False)
    except Exception as error:
        raise DataError(f"{file} is damaged ({error}); remove it to have it made again") from error
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
        os.replace(unfinished, file)  # a process that reads beside this one never finds half of it
    except OSError as error:
        raise DataError(
            f"could not write {file}, {np.prod(shape) / 1e9:.1f} GB ({error}); make room, or set PPVAE_DATA to a "
            "folder that can be written to"
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)
