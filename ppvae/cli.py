"""Command lines from dataclasses of settings."""

import sys
from collections.abc import Callable
from typing import TypeVar

from ppvae.errors import Interrupted, PpvaeError

Config = TypeVar("Config")


def run(main: Callable[[Config], object], config_class: type[Config], description: str) -> None:
    """Read a dataclass of settings from the command line and call ``main(config)``.

    Errors that the user can fix (``PpvaeError``, ``ValueError``, ``OSError``) end the program with their message and
    status 1. A training run stopped by a signal ends with status 128 plus the number of the signal. Other exceptions
    are not caught.

    Args:
        main: what the command does.
        config_class: dataclass of settings; each field becomes an option with the field's docstring as help.
        description: of the command, for ``--help``.

    Example:

        >>> import sys
        >>> from dataclasses import dataclass
        >>> from ppvae import cli
        >>> @dataclass(frozen=True)
        ... class Config:
        ...     epochs: int = 1
        >>> sys.argv = ["train.py", "--epochs", "3"]
        >>> cli.run(print, Config, "Train a pair.")
        Config(epochs=3)
    """
    import tyro
    from rich.console import Console

    console = Console(stderr=True)
    try:
        main(tyro.cli(config_class, description=description))
    except Interrupted as stop:
        console.print(str(stop), style="bold", markup=False)
        sys.exit(128 + stop.signal_number)
    except (PpvaeError, ValueError, OSError) as error:
        console.print("error:", style="bold red", end=" ")
        console.print(str(error), highlight=False, markup=False, soft_wrap=True)
        sys.exit(1)
