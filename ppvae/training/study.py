"""Tables made of many runs: finished runs are not repeated, and runs with different settings are not mixed."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ppvae.training.files import RunFolderError, write_whole

REPORT = "report.json"
SETTINGS = "settings.json"
Settings = Mapping[str, Any]


def finished(folder: Path, settings: Settings, length: str | None = None) -> bool:
    """Whether a run folder holds the report of a finished run.

    Args:
        folder: of the run.
        settings: those that the run must have; its other settings are not compared.
        length: the setting that says how long the run is trained, if runs can be lengthened. A shorter run is then not
            finished.

    Raises:
        RunFolderError: the run has other settings.

    Example:

        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> finished(folder, {"seed": 0})
        False
        >>> write_report(folder, {"seed": 0, "nll": 98.5})
        >>> finished(folder, {"seed": 0})
        True
    """
    return (folder / REPORT).exists() and _is_of(folder, _read(folder / REPORT), settings, length)


def claim(folder: Path, settings: Settings) -> None:
    """Write the settings of a run into its folder, which must exist, before anything else is written there.

    The settings of a run that can be lengthened leave its length out.

    Raises:
        RunFolderError: the folder holds a checkpoint or a report of a run with other settings.

    Example:

        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> claim(folder, {"seed": 0})
        >>> (folder / SETTINGS).exists()
        True
    """
    file = folder / SETTINGS
    if not started(folder) and not (folder / REPORT).exists():
        _write(file, settings)
        return
    written = next((path for path in (file, folder / REPORT) if path.exists()), None)
    if written is None:
        raise RunFolderError(f"{folder} holds a run without {SETTINGS}; choose another folder (--out)")
    _is_of(folder, _read(written), settings)


def started(folder: Path) -> bool:
    """Whether a run folder holds a checkpoint to resume from.

    Example:

        >>> import tempfile
        >>> started(Path(tempfile.mkdtemp()))
        False
    """
    return (folder / "last.safetensors").exists()


def withdraw_report(folder: Path) -> None:
    """Remove the report, if there is one, before the run that it reports on changes.

    Example:

        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_report(folder, {"seed": 0})
        >>> withdraw_report(folder)
        >>> finished(folder, {"seed": 0})
        False
    """
    (folder / REPORT).unlink(missing_ok=True)


def write_report(folder: Path, report: Settings) -> None:
    """Write report.json, which marks the run as finished. Raises ValueError on NaN (not valid JSON).

    Example:

        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_report(folder, {"seed": 0, "nll": 98.5})
        >>> (folder / REPORT).exists()
        True
    """
    _write(folder / REPORT, report)


def reports(out: Path, settings: Settings, length: str | None = None) -> list[dict[str, Any]]:
    """The reports of all finished runs in the folders of ``out``, sorted by the folder's name.

    Arguments as of :func:`finished`. Raises RunFolderError if a run has other settings.

    Example:

        >>> import tempfile
        >>> out = Path(tempfile.mkdtemp())
        >>> (out / "run").mkdir()
        >>> write_report(out / "run", {"seed": 0, "nll": 98.5})
        >>> reports(out, {"seed": 0})
        [{'seed': 0, 'nll': 98.5}]
    """
    found = [(path.parent, _read(path)) for path in sorted(out.glob(f"*/{REPORT}"))]
    return [report for folder, report in found if _is_of(folder, report, settings, length)]


def _read(path: Path) -> dict[str, Any]:
    """A dictionary from a JSON file. Raises RunFolderError for anything else."""
    try:
        values = json.loads(path.read_text())
    except ValueError as error:
        raise RunFolderError(f"expected JSON in {path}, got something else ({error}); remove the file") from error
    if not isinstance(values, dict):
        raise RunFolderError(f"expected a dictionary in {path}, got a {type(values).__name__}; remove the file")
    return values


def _write(path: Path, values: Settings) -> None:
    write_whole(path, (json.dumps(values, indent=2, allow_nan=False) + "\n").encode())


def _is_of(folder: Path, saved: Settings, settings: Settings, length: str | None = None) -> bool:
    """Whether a run has these settings: False if it is shorter, RunFolderError if it is another."""
    if length is not None and saved.get(length, settings[length]) < settings[length]:
        return False
    for name, value in json.loads(json.dumps(settings)).items():
        if saved.get(name) != value:
            raise RunFolderError(
                f"{folder} was run with {name}={saved.get(name)!r}, not {value!r}; choose another folder (--out)"
            )
    return True
