"""Tables made of many runs: what is finished is not run again, and runs of different settings are not mixed."""

import json
import os
from pathlib import Path

from ppvae.training.run_folder import RunFolderError

REPORT = "report.json"


def finished(folder: Path, settings: dict, length: str | None = None) -> bool:
    """Whether a run folder holds the report of a finished run.

    ``length`` names the setting that says how long it is trained, if its runs can be lengthened: a shorter one is then
    not finished.

    Raises RunFolderError if that run had other ``settings`` than these (of those that are named here).
    """
    return (folder / REPORT).exists() and _is_of(folder, _read(folder / REPORT), settings, length)


def claim(folder: Path, settings: dict) -> None:
    """Say in a run folder, which must exist, what ``settings`` its run has, before anything else is written there.

    A run that can be lengthened leaves its length out.

    Raises RunFolderError where it holds a checkpoint or a report of others, which would be taken for these'.
    """
    file = folder / "settings.json"
    if not started(folder) and not (folder / REPORT).exists():
        _write(file, settings)
        return
    said = next((path for path in (file, folder / REPORT) if path.exists()), None)
    if said is None:
        raise RunFolderError(f"{folder} holds a run that does not say its settings; choose another folder (--out)")
    _is_of(folder, _read(said), settings)


def started(folder: Path) -> bool:
    """Whether a run folder holds a checkpoint to go on from."""
    return (folder / "last.safetensors").exists()


def withdraw_report(folder: Path) -> None:
    """Take the report out, if there is one, before what it reports on is written anew."""
    (folder / REPORT).unlink(missing_ok=True)


def write_report(folder: Path, report: dict) -> None:
    """The last thing that a run writes: with it, it is finished. Raises ValueError at a NaN, which JSON has not."""
    _write(folder / REPORT, report)


def reports(out: Path, settings: dict, length: str | None = None) -> list[dict]:
    """Those of all finished runs in the folders of ``out``, by name; without shorter ones where there is a ``length``.

    Raises RunFolderError like :func:`finished` if any other differs.
    """
    found = [(path.parent, _read(path)) for path in sorted(out.glob(f"*/{REPORT}"))]
    return [report for folder, report in found if _is_of(folder, report, settings, length)]


def _read(path: Path) -> dict:
    return json.loads(path.read_text())


def _write(path: Path, values: dict) -> None:
    whole = path.with_name(f".{path.name}")
    whole.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n")
    os.replace(whole, path)  # a process that reads beside this one never finds half of it


def _is_of(folder: Path, saved: dict, settings: dict, length: str | None = None) -> bool:
    """Whether what was run has these settings: False if it is shorter, RunFolderError if it is another."""
    if length is not None and saved.get(length, settings[length]) < settings[length]:
        return False
    for name, value in json.loads(json.dumps(settings)).items():
        if saved.get(name) != value:
            raise RunFolderError(
                f"{folder} was run with {name}={saved.get(name)!r}, not {value!r}; choose another folder (--out)"
            )
    return True
