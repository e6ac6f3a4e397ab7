"""MNIST and its likes, through torchvision, downloaded where they are absent."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import getproxies

from ppvae.data.parts import Part
from ppvae.errors import DataError

PATIENCE = 4.0  # seconds that a host may say nothing
_FILES = [f"{part}-{kind}" for part in ("train", "t10k") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")]


def of_torchvision(name: str) -> Callable[[Path], tuple[Part, Part]]:
    """The reader of ``torchvision.datasets.MNIST`` or a set that takes its form."""
    return lambda root: _read(torchvision_set(name), root)


def torchvision_set(name: str):
    """A class of ``torchvision.datasets``."""
    try:
        datasets = import_module("torchvision.datasets")  # where it is used: it takes seconds
    except (ImportError, RuntimeError) as error:  # a torchvision beside a torch of another build
        raise DataError(f"torchvision cannot be imported ({error}); install the one that fits torch") from error
    return getattr(datasets, name)


def _read(dataset, root: Path) -> tuple[Part, Part]:
    raw = root / dataset.__name__ / "raw"
    if not all((raw / file).exists() for file in _FILES):
        _download(dataset, root)
    parts: list[Part] = []
    for train, rows in ((True, 60_000), (False, 10_000)):
        try:
            data = dataset(root, train=train)
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
        name = dataset.__name__
        raise DataError(
            f"{name} is not in {root} and could not be downloaded ({error}). Put its four files into {root}/{name}/"
            'raw, set PPVAE_DATA to a folder that has them, or use the embedded "digits"'
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
