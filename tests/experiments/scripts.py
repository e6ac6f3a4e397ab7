"""Experiments as modules, imported as ``python experiments/NAME.py`` imports them."""

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

EXPERIMENTS = Path(__file__).parent.parent.parent / "experiments"
FOLDERS = [str(EXPERIMENTS), str(EXPERIMENTS / "benchmarks")]


def script(name: str) -> ModuleType:
    """An experiment or a benchmark by its name."""
    sys.path[:0] = FOLDERS
    try:
        return import_module(name)
    finally:
        del sys.path[: len(FOLDERS)]
