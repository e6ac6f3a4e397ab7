"""Data sets by name."""

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import getproxies

import numpy as np
import torch
from torch import Tensor

from ppvae.data.dataset import Binarization, Dataset, Splits
from ppvae.errors import DataError

SPLIT_SEED = 0  # the same split in every run, so that scores of two runs are of the same test data
PATIENCE = 4.0  # seconds that a host may say nothing
Part = tuple[Tensor, Tensor | None]  # x, and its labels if it has any
_MNIST_FILES = [f"{part}-{kind}" for part in ("train", "t10k") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")]


def load(
    name: str,
    binarization: Binarization | None = None,
    validation: int | None = None,
    root: str | Path | None = None,
) -> Splits:
    """Load a data set as training, validation and test part.

    Args:
        name: "mnist" (60,000 + 10,000 images of 28x28; downloaded if absent), "digits" (scikit-learn's 1,797
            images of 8x8, embedded) or "freyfaces" (1,965 grey frames of 28x20 of a film of one face, of which 200
            are the test part; no labels; the file ``freyfaces.npz``, array ``images``, which is not downloaded).
        binarization: "dynamic", "fixed" or "none"; see :class:`Dataset`. If None, that of the data set: "none"
            for Frey faces, "dynamic" for the others.
        validation: rows of the training part to hold out, 0 for none; by default 10,000 of MNIST, 257 of the digits,
            200 of Frey faces.
        root: folder that holds the data; default ``$PPVAE_DATA``, else ``~/.cache/ppvae``.

    Frey faces follow one another in time and are split at random, as in the literature: a test frame has near twins
    among the training frames.

    Raises DataError for an unknown name, a file that is damaged or (Frey faces) absent, or a download that fails.
    """
    if name not in _SOURCES:
        raise DataError(f"expected a data set out of {', '.join(NAMES)}; got {name!r}")
    source = _SOURCES[name]
    binarization = binarization or source.binarization
    (x, y), test = source.read(data_root(root))
    splits = {**_hold_out(x, y, source.validation if validation is None else validation), "test": test}
    parts = {}
    for seed, (part, (x, y)) in enumerate(splits.items()):
        data = Dataset(x, y, num_classes=None if y is None else 10, name=name)
        parts[part] = data.binarized(seed) if binarization == "fixed" else replace(data, binarization=binarization)
    return Splits(**parts)


def data_root(root: str | Path | None = None) -> Path:
    """The folder of data: ``root``, else ``$PPVAE_DATA``, else ``~/.cache/ppvae``."""
    return Path(root or os.environ.get("PPVAE_DATA") or Path.home() / ".cache" / "ppvae")


def _mnist(root: Path) -> tuple[Part, Part]:
    try:
        from torchvision.datasets import MNIST  # where it is used: its import takes seconds
    except (ImportError, RuntimeError) as error:  # a torchvision beside a torch of another build
        raise DataError(f"torchvision cannot be imported ({error}); install the one that fits torch") from error

    raw = root / "MNIST" / "raw"
    if not all((raw / file).exists() for file in _MNIST_FILES):
        _download(MNIST, root)
    parts: list[Part] = []
    for train, rows in ((True, 60_000), (False, 10_000)):
        try:
            data = MNIST(root, train=train)
        except Exception as error:
            raise _damaged(raw, error) from error
        if data.data.shape != (rows, 28, 28) or data.targets.shape != (rows,):
            raise _damaged(raw, f"{tuple(data.data.shape)} images, expected {rows}")
        parts.append((data.data, data.targets.long()))
    return parts[0], parts[1]


def _download(dataset, root: Path) -> None:
    try:
        if not getproxies() and not any(map(_reachable, dataset.mirrors)):
            raise OSError(f"none of its mirrors answered within {PATIENCE:g} seconds")
        with _patience(PATIENCE):
            dataset(root, download=True)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"MNIST is not in {root} and could not be downloaded ({error}). Put its four files into {root}/MNIST/raw, "
            'set PPVAE_DATA to a folder that has them, or use the embedded "digits"'
        ) from error


def _reachable(url: str) -> bool:
    """Whether a host answers in time. Looking up its name heeds no time-out, so it gets its own thread."""
    host = (urlparse(url).hostname, 443 if url.startswith("https") else 80)
    answered = threading.Event()

    def connect() -> None:
        with contextlib.suppress(OSError), socket.create_connection(host, timeout=PATIENCE):
            answered.set()

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return answered.is_set()


def _damaged(raw: Path, reason) -> DataError:
    return DataError(f"a file in {raw} is damaged ({reason}). Remove that folder to download it again")


@contextlib.contextmanager
def _patience(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _digits(root: Path) -> tuple[Part, Part]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = torch.from_numpy(np.round(digits.images * (255 / 16)).astype(np.uint8))
    return _test_apart(grey, torch.from_numpy(digits.target.astype(np.int64)), 540)


def _freyfaces(root: Path) -> tuple[Part, Part]:
    file = root / "freyfaces.npz"
    if not file.exists():
        raise DataError(
            f"Frey faces are not in {root}. Put them there as freyfaces.npz, with an array `images` of type uint8 and "
            f"shape {_FREYFACES}, or set PPVAE_DATA to a folder that has it"
        )
    try:
        with np.load(file, allow_pickle=False) as arrays:
            images = arrays["images"]
    except Exception as error:  # of zip, zlib, numpy: each has its own word for a damaged file
        raise DataError(
            f"{file} is damaged ({type(error).__name__}: {error}); put a whole copy in its place"
        ) from error
    if images.shape != _FREYFACES or images.dtype != np.uint8:
        raise DataError(f"expected `images` in {file} as uint8 {_FREYFACES}, got {images.dtype} {images.shape}")
    return _test_apart(torch.from_numpy(images), None, 200)


def _test_apart(x: Tensor, y: Tensor | None, rows: int) -> tuple[Part, Part]:
    parts = _hold_out(x, y, rows)
    return parts["train"], parts["validation"]


def _hold_out(x: Tensor, y: Tensor | None, rows: int) -> dict[str, Part]:
    if not 0 <= rows < len(x):
        raise DataError(f"expected to hold out between 0 and {len(x) - 1} rows, got {rows}")
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(SPLIT_SEED))
    parts = {"train": order[: len(x) - rows], "validation": order[len(x) - rows :]}
    return {part: (x[index], None if y is None else y[index]) for part, index in parts.items() if len(index)}


@dataclass(frozen=True)
class _Source:
    """A data set's reader (folder -> training part, test part) and what :func:`load` does with it by default."""

    read: Callable[[Path], tuple[Part, Part]]
    validation: int
    binarization: Binarization = "dynamic"


_FREYFACES = (1965, 28, 20)
_SOURCES = {
    "mnist": _Source(_mnist, 10_000),
    "digits": _Source(_digits, 257),
    "freyfaces": _Source(_freyfaces, 200, "none"),
}
NAMES = tuple(_SOURCES)
