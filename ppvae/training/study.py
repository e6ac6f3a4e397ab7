"""Tables made of many runs: what is finished is not run again, and runs of different settings are not mixed."""

import json
import os
from pathlib import Path

from ppvae.training.run_folder import RunFolderError

REPORT = "report.json"


def finished(folder: Path, settings: dict, length: str | None = None) -> bool:
    """Whether a run folder holds the report of a finished run.

    ``length`` names the setting that says how long it is trained, if its runs can be lengthened: the report of a
    shorter run is then none of this one.

    Raises RunFolderError if that run had other ``settings`` than these (of those that are named here).
    """
    if not (folder / REPORT).exists():
        return False
    return not _shorter(folder, json.loads((folder / REPORT).read_text()), settings, length)


def claim(folder: Path, settings: dict, length: str | None = None) -> None:
    """Say in a run folder, which must exist, what ``settings`` its run has, before anything else is written there.

    A folder whose run differs in nothing but a smaller ``length`` (the name of a setting) is taken up, to train on.

    Raises RunFolderError where it holds a checkpoint or a report of others, which would be taken for these'.
    """
    file = folder / "settings.json"
    if started(folder) or (folder / REPORT).exists():
        said = next((path for path in (file, folder / REPORT) if path.exists()), None)
        if said is None:
            raise RunFolderError(f"{folder} holds a run that does not say its settings; choose another folder (--out)")
        if not _shorter(folder, json.loads(said.read_text()), settings, length):
            return
    file.write_text(json.dumps(settings, indent=2) + "\n")


def started(folder: Path) -> bool:
    """Whether a run folder holds a checkpoint to go on from."""
    return (folder / "last.safetensors").exists()


def write_report(folder: Path, report: dict) -> None:
    """The last thing that a run writes: with it, it is finished. Raises ValueError at a NaN, which JSON has not."""
    whole = folder / f".{REPORT}"
    whole.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n")
    os.replace(whole, folder / REPORT)  # a process that reads beside this one never finds half of it


def reports(out: Path, settings: dict, length: str | None = None) -> list[dict]:
    """Those of all finished runs in the folders of ``out``, by name; refused like :func:`finished` if any differs."""
    folders = [path.parent for path in sorted(out.glob(f"*/{REPORT}"))]
    return [json.loads((folder / REPORT).read_text()) for folder in folders if finished(folder, settings, length)]


def _shorter(folder: Path, saved: dict, settings: dict, length: str | None) -> bool:
    """Whether what was run is a shorter run of these settings; RunFolderError if it is another."""
    shorter = False
    for name, value in json.loads(json.dumps(settings)).items():
        if name == length and name in saved and saved[name] < value:
            shorter = True
        elif saved.get(name) != value:
            raise RunFolderError(
                f"{folder} was run with {name}={saved.get(name)!r}, not {value!r}; choose another folder (--out)"
            )
    return shorter
