"""Files that are written whole or not at all."""

import os
import uuid
from pathlib import Path

from ppvae.errors import PpvaeError

UNFINISHED = ".unfinished"


class RunFolderError(PpvaeError, OSError):
    """A run folder cannot be written, or holds a run with other settings.

    Example:

        >>> try:
        ...     write_whole(Path("absent", "a.txt"), b"text")
        ... except RunFolderError as error:
        ...     print(str(error)[:33])
        expected to write absent/a.txt (4
    """


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or the next process after a kill, finds the old content or the new one.

    The content goes into a temporary file in the same folder, is synced to the disk and takes the place of ``path`` in
    one step. The mode of the file follows the umask.

    Raises:
        RunFolderError: the folder is gone, full or not writable. The old file is kept.

    Example:

        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_whole(folder / "a.txt", b"text")
        >>> [(file.name, file.read_text()) for file in folder.iterdir()]
        [('a.txt', 'text')]
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}{UNFINISHED}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise RunFolderError(
            f"expected to write {path} ({len(content):,} bytes), got {error}; free space there, or choose another "
            "folder. The old file is kept"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Remove the temporary files that killed processes left in a folder.

    Example:

        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> Path(folder, f".a.txt{UNFINISHED}").touch()
        >>> remove_unfinished(folder)
        >>> list(folder.iterdir())
        []
    """
    for temporary in folder.glob(f".*{UNFINISHED}"):
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Sync the entry of a new name, where the system lets a folder be opened."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
