"""The folder that a run leaves: configuration, metrics as JSON lines, checkpoints."""

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from torch import Tensor

from ppvae.errors import CheckpointError, PpvaeError
from ppvae.training import checkpoint

WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # what file systems without them say


class RunFolder:
    """A folder with config.json, metrics.jsonl, last.safetensors and best.safetensors.

    Args:
        path: the folder, which :func:`locked` has made and holds. None keeps nothing on disk.
        resume: take up the run that the folder holds. Without it a folder that holds one is refused, so
            that no run overwrites another.
        config: what must be equal for a run to be taken up.
    """

    def __init__(self, path: str | Path | None, resume: bool, config: dict):
        self.path = None if path is None else Path(path)
        self.resumed = False
        if self.path is None:
            if resume:
                raise ValueError("expected run_dir with resume=True, got None")
            return
        self.resumed = resume and self.last.exists()
        if self.last.exists() and not resume:
            raise FileExistsError(
                f"{self.path} holds a run already; pass resume=True (--resume) to take it up, or another folder"
            )
        if self.resumed:
            self._check_config(config)
        else:
            (self.path / "config.json").write_text(json.dumps(config, indent=2) + "\n")

    @property
    def last(self) -> Path:
        return self.path / "last.safetensors"

    @property
    def best(self) -> Path:
        return self.path / "best.safetensors"

    def save(self, tensors: dict[str, Tensor], values: dict, best: bool = False) -> None:
        if self.path is not None:
            checkpoint.save(self.best if best else self.last, tensors, values)

    def append_metrics(self, row: dict) -> None:
        if self.path is not None:
            with (self.path / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")

    def metrics(self, epochs: int) -> list[dict]:
        """The rows of the first ``epochs`` epochs; later ones, which no checkpoint vouches for, are dropped."""
        file = self.path / "metrics.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        rows = [row for row in map(_row, lines) if row is not None and row["epoch"] <= epochs]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return rows

    def _check_config(self, config: dict) -> None:
        try:
            saved = json.loads((self.path / "config.json").read_text())
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{self.path} has a checkpoint, but its config.json cannot be read ({error}); restore it or start anew"
            ) from error
        for name, value in config.items():
            if saved.get(name) != value:
                raise CheckpointError(
                    f"{self.path} holds a run with {name}={saved.get(name)!r}, got {name}={value!r}; "
                    "resume with the same settings, or start anew in another folder"
                )


@contextmanager
def locked(path: str | Path | None) -> Iterator[None]:
    """Hold a run folder against other processes, on this machine or on others that share it; None is no folder.

    Where the file system has locks; the lock ends with the process, however that ends. Raises RunFolderInUseError where
    another process has it, and RunFolderError where the folder cannot be written.
    """
    if path is None:
        yield
        return
    _make_writable(Path(path))
    lock = FileLock(Path(path) / ".lock", timeout=0, is_singleton=True)
    try:
        lock.acquire()
    except Timeout as error:
        raise RunFolderInUseError(f"{path} is in use by another process; wait for it, or use another") from error
    except NotImplementedError:  # filelock's own word for a file system without locks
        pass
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise RunFolderError(f"expected a run folder that can be locked, got {path} ({error})") from error
    try:
        yield
    finally:
        lock.release()


def _row(line: str) -> dict | None:
    try:
        return json.loads(line)
    except ValueError:  # a line that was cut off while it was written
        return None


def _make_writable(path: Path) -> None:
    probe = path / ".writable"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink(missing_ok=True)  # another process may have come between
    except OSError as error:
        raise RunFolderError(
            f"expected a run folder that can be written, got {path} ({error}); choose another"
        ) from error


class RunFolderError(PpvaeError, OSError):
    """A run folder cannot be written, or holds a run of other settings."""


class RunFolderInUseError(RunFolderError):
    """Another process is at work in a run folder."""
