"""Data sets by name."""

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
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
_MNIST_FILES = [f"{part}-{kind}" for part in ("train", "t10k") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")]


def load(
    name: str,
    binarization: Binarization = "dynamic",
    validation: int | None = None,
    root: str | Path | None = None,
) -> Splits:
    """Load a data set as training, validation and test part.

    Args:
        name: "mnist" (60,000 + 10,000 images of 28x28; downloaded if absent) or "digits" (scikit-learn's 1,797
            images of 8x8, embedded).
        binarization: "dynamic", "fixed" or "none"; see :class:`Dataset`.
        validation: rows of the training part to hold out, 0 for none; by default 10,000 of MNIST, 257 of the digits.
        root: folder that holds the data; default ``$PPVAE_DATA``, else ``~/.cache/ppvae``.

    Raises DataError for an unknown name, a damaged file, or a download that fails.
    """
    if name not in _LOADERS:
        raise DataError(f"expected a data set out of {', '.join(NAMES)}; got {name!r}")
    splits = _LOADERS[name](validation, data_root(root))
    parts = {}
    for seed, (part, (x, y)) in enumerate(splits.items()):
        data = Dataset(x, y, num_classes=10, name=name)
        parts[part] = data.binarized(seed) if binarization == "fixed" else _with(data, binarization)
    return Splits(**parts)


def data_root(root: str | Path | None = None) -> Path:
    """The folder of data: ``root``, else ``$PPVAE_DATA``, else ``~/.cache/ppvae``."""
    return Path(root or os.environ.get("PPVAE_DATA") or Path.home() / ".cache" / "ppvae")


def _with(data: Dataset, binarization: Binarization) -> Dataset:
    return Dataset(data.x, data.y, data.num_classes, binarization, data.name)


def _mnist(validation: int | None, root: Path) -> dict[str, tuple[Tensor, Tensor]]:
    (x, y), test = _mnist_parts(root)
    return {**_hold_out(x, y, 10_000 if validation is None else validation), "test": test}


def _mnist_parts(root: Path) -> list[tuple[Tensor, Tensor]]:
    try:
        from torchvision.datasets import MNIST  # where it is used: its import takes seconds
    except (ImportError, RuntimeError) as error:  # a torchvision beside a torch of another build
        raise DataError(f"torchvision cannot be imported ({error}); install the one that fits torch") from error

    raw = root / "MNIST" / "raw"
    if not all((raw / file).exists() for file in _MNIST_FILES):
        _download(MNIST, root)
    parts = []
    for train, rows in ((True, 60_000), (False, 10_000)):
        try:
            data = MNIST(root, train=train)
        except Exception as error:
            raise _damaged(raw, error) from error
        if data.data.shape != (rows, 28, 28) or data.targets.shape != (rows,):
            raise _damaged(raw, f"{tuple(data.data.shape)} images, expected {rows}")
        parts.append((data.data, data.targets.long()))
    return parts


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


def _digits(validation: int | None, root: Path) -> dict[str, tuple[Tensor, Tensor]]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = torch.from_numpy(np.round(digits.images * (255 / 16)).astype(np.uint8))
    labels = torch.from_numpy(digits.target.astype(np.int64))
    split = _hold_out(grey, labels, 540)
    x, y = split["train"]
    return {**_hold_out(x, y, 257 if validation is None else validation), "test": split["validation"]}


def _hold_out(x: Tensor, y: Tensor, rows: int) -> dict[str, tuple[Tensor, Tensor]]:
    if not 0 <= rows < len(x):
        raise DataError(f"expected to hold out between 0 and {len(x) - 1} rows, got {rows}")
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(SPLIT_SEED))
    train, held_out = order[: len(x) - rows], order[len(x) - rows :]
    parts = {"train": (x[train], y[train])}
    return parts if rows == 0 else {**parts, "validation": (x[held_out], y[held_out])}


_LOADERS = {"mnist": _mnist, "digits": _digits}
NAMES = tuple(_LOADERS)
