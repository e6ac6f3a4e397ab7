"""Progress bars for passes over data."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def tracked(items: Sequence[Item], title: str, progress: bool) -> Iterable[Item]:
    """The items, with a progress bar on the terminal if ``progress``.

    Example:

        >>> list(tracked([1, 2, 3], "rows", progress=False))
        [1, 2, 3]
    """
    if not progress:
        return items
    from rich.progress import track

    return track(items, title)


def blocks(rows: int, size: int) -> list[slice]:
    """Slices of at most ``size`` rows that cover all rows in order.

    Example:

        >>> blocks(5, 2)
        [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]
