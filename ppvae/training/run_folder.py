"""The folder of a run: configuration, metrics as JSON lines, checkpoints."""

import errno
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from torch import Tensor

from ppvae.errors import CheckpointError
from ppvae.training import checkpoint
from ppvae.training.arguments import RunDir
from ppvae.training.files import RunFolderError, remove_unfinished, write_whole

__all__ = ["RunExistsError", "RunFolder", "RunFolderError", "RunFolderInUseError", "locked"]

WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # errors of file systems without locks
CONFIG, METRICS, LAST, BEST = "config.json", "metrics.jsonl", "last.safetensors", "best.safetensors"


class RunFolderInUseError(RunFolderError):
    """Another process uses the run folder.

    Example:

        >>> try:
        ...     raise RunFolderInUseError("runs/a is in use by another process")
        ... except RunFolderError as error:
        ...     print(error)
        runs/a is in use by another process
    """


class RunExistsError(RunFolderError, FileExistsError):
    """The run folder already holds a run, and ``resume`` is False.

    Example:

        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / LAST).touch()
        >>> try:
        ...     RunFolder(RunDir(folder), {}, {})
        ... except RunExistsError as error:
        ...     print("holds a run already" in str(error))
        True
    """


class RunFolder:
    """A folder with config.json, metrics.jsonl, last.safetensors and best.safetensors. Each is written whole.

    Args:
        run_dir: the folder, which :func:`locked` has made and holds. None keeps nothing on disk.
        settings: what must be equal for a run to be resumed.
        environment: facts about the machine, which are written down and may differ.

    Raises:
        RunExistsError: the folder holds a run, and ``run_dir`` does not ask to resume it.
        CheckpointError: the run to resume has other settings, or its config.json cannot be read.

    Example:

        >>> import tempfile
        >>> folder = RunFolder(RunDir(tempfile.mkdtemp()), {"seed": 0}, {})
        >>> folder.write_metrics([{"epoch": 1, "loss": 98.5}])
        >>> sorted(file.name for file in folder.path.iterdir())
        ['config.json', 'metrics.jsonl']
    """

    def __init__(self, run_dir: RunDir | None, settings: Mapping[str, Any], environment: Mapping[str, str]):
        self.path = None if run_dir is None else run_dir.path
        self.resumed = False
        if self.path is None or run_dir is None:
            return
        self.resumed = run_dir.resume and (self.path / LAST).exists()
        if (self.path / LAST).exists() and not run_dir.resume:
            raise RunExistsError(
                f"{self.path} holds a run already; pass run_dir=RunDir({str(self.path)!r}, resume=True) to continue it "
                "(on a command line, --resume where there is one), or choose another folder"
            )
        remove_unfinished(self.path)
        if self.resumed:
            self._check_settings(settings)
        else:
            config = {**settings, "environment": dict(environment)}
            write_whole(self.path / CONFIG, (json.dumps(config, indent=2) + "\n").encode())

    def save(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any], best: bool = False) -> None:
        """Write the last checkpoint, or the best one."""
        if self.path is not None:
            self._check_present()
            checkpoint.save(self.path / (BEST if best else LAST), tensors, values)

    def read_last(self) -> tuple[checkpoint.Tensors, dict[str, Any]]:
        """The last checkpoint. Raises CheckpointError if it is damaged."""
        return checkpoint.read(self.require_last())

    def require_last(self) -> Path:
        """The path of the last checkpoint."""
        if self.path is None:
            raise ValueError("expected a run folder, got none")
        return self.path / LAST

    def write_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write the rows of all epochs so far."""
        if self.path is not None:
            self._check_present()
            write_whole(self.path / METRICS, "".join(json.dumps(row) + "\n" for row in rows).encode())

    def kept(self) -> str:
        """For messages: what an interrupted run leaves."""
        return "no run folder was given, so nothing was saved" if self.path is None else f"{self.path / LAST} is kept"

    def _check_present(self) -> None:
        """A folder that was moved or emptied must not be filled anew without its configuration."""
        if self.path is not None and not (self.path / CONFIG).exists():
            raise RunFolderError(
                f"expected {self.path / CONFIG}, found none: the run folder was moved or emptied during training; "
                "move it back and resume"
            )

    def _check_settings(self, settings: Mapping[str, Any]) -> None:
        try:
            saved = json.loads((self.require_last().parent / CONFIG).read_text())
            if not isinstance(saved, dict):
                raise ValueError(f"a {type(saved).__name__} instead of a dictionary")
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{self.path} has a checkpoint, but its config.json cannot be read ({error}); restore it or start anew"
            ) from error
        for name, value in json.loads(json.dumps(settings)).items():
            if name not in saved or saved[name] != value:
                raise CheckpointError(
                    f"{self.path} holds a run with {name}={saved.get(name)!r}, got {name}={value!r}; "
                    "resume with the same settings, or start anew in another folder"
                )


@contextmanager
def locked(path: str | Path | None) -> Iterator[None]:
    """Make a run folder and hold it against other processes, on this machine or on others that share it.

    The lock ends with the process. None is no folder. A file system without locks is used without one.

    Raises:
        RunFolderInUseError: another process holds the folder.
        RunFolderError: the folder cannot be written.

    Example:

        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp(), "run")
        >>> with locked(folder):
        ...     folder.exists()
        True
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
    except NotImplementedError:  # filelock's error for a file system without locks
        pass
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise RunFolderError(f"expected a run folder that can be locked, got {path} ({error})") from error
    try:
        yield
    finally:
        lock.release()


def _make_writable(path: Path) -> None:
    probe = path / ".writable"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink(missing_ok=True)  # another process may have removed it
    except OSError as error:
        raise RunFolderError(
            f"expected a run folder that can be written, got {path} ({error}); choose another"
        ) from error
