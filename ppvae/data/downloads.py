"""MNIST and sets of its form, downloaded by torchvision if they are absent."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import getproxies

from ppvae.data.idx import idx_file, read_idx
from ppvae.data.parts import Part
from ppvae.errors import DataError

TIMEOUT = 4.0  # seconds to wait for a silent host
_PARTS = (("train", 60_000), ("t10k", 10_000))


def of_torchvision(name: str) -> Callable[[Path], tuple[Part, Part]]:
    """The reader of ``torchvision.datasets.MNIST`` or a set of its form; torchvision is imported to download only.

    Example:

        >>> read = of_torchvision("MNIST")  # nothing is read or downloaded before read(root)
        >>> callable(read)
        True
    """
    return lambda root: _read(name, root)


def torchvision_set(name: str) -> Any:
    """A class of ``torchvision.datasets``. Raises DataError if torchvision cannot be imported.

    Example:

        >>> torchvision_set("MNIST").__name__
        'MNIST'
    """
    try:
        datasets = import_module("torchvision.datasets")  # imported late: it takes seconds
    except (ImportError, RuntimeError) as error:  # a RuntimeError if torch is of another build
        raise DataError(f"torchvision cannot be imported ({error}); install the one that fits torch") from error
    return getattr(datasets, name)


def _read(name: str, root: Path) -> tuple[Part, Part]:
    raw = root / name / "raw"
    files = [raw / f"{part}-{kind}" for part, _ in _PARTS for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")]
    if not all(idx_file(file) for file in files):
        _download(name, root)
    return _part(raw, *_PARTS[0]), _part(raw, *_PARTS[1])


def _part(raw: Path, part: str, rows: int) -> Part:
    forms = {f"{part}-images-idx3-ubyte": (rows, 28, 28), f"{part}-labels-idx1-ubyte": (rows,)}
    x, y = (read_idx(idx_file(raw / name) or raw / name, shape) for name, shape in forms.items())
    return x, y.long()


def _download(name: str, root: Path) -> None:
    dataset = torchvision_set(name)
    try:
        if not getproxies() and not any(map(_reachable, dataset.mirrors)):
            raise OSError(f"none of its mirrors answered within {TIMEOUT:g} seconds")
        with _timeout(TIMEOUT):
            dataset(root, download=True)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"{name} is not in {root} and could not be downloaded ({error}). Put its four files, as they are or with "
            f'.gz, into {root}/{name}/raw, set PPVAE_DATA to a folder that has them, or use the embedded "digits"'
        ) from error


def _reachable(url: str) -> bool:
    """Whether a connection to a host opens in time. In a separate thread: looking up a name has no time-out."""
    host = (urlparse(url).hostname, 443 if url.startswith("https") else 80)
    answered = threading.Event()

    def connect() -> None:
        with contextlib.suppress(OSError), socket.create_connection(host, timeout=TIMEOUT):
            answered.set()

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    return answered.is_set()


@contextlib.contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
