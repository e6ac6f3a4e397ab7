"""Command lines from typed settings."""

import sys
from collections.abc import Callable

from ppvae.errors import Interrupted, PpvaeError


def run(main: Callable, config_class: type, description: str) -> None:
    """Read a dataclass of settings from the command line and call ``main(config)``.

    An error that a user can mend ends with its message alone and status 1; a stopped run with 128 plus the signal.
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
