"""The progress of a run: a bar on a terminal, and one line per epoch."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

MAIN_PARTS = 6  # printed of the loss, the largest


class ProgressReport:
    """A context that shows steps, the running loss and the time left. The bar disappears at the end.

    Args:
        epochs: of the run.
        steps_per_epoch: length of the bar.
        active: whether anything is printed.
        console: where; by default the standard output.

    Example:

        >>> with ProgressReport(epochs=2, steps_per_epoch=10, active=False) as report:
        ...     report.advance()
    """

    def __init__(self, epochs: int, steps_per_epoch: int, active: bool, console: "Console | None" = None):
        # rich takes a while to import, which only training needs.
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.epochs, self.active = epochs, active
        self.console = console or Console()
        columns = [
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("loss {task.fields[loss]}"),
        ]
        shown = active and self.console.is_terminal
        self.bar = Progress(*columns, console=self.console, disable=not shown, transient=True)
        self.task = self.bar.add_task(f"epoch 1/{epochs}", total=steps_per_epoch, loss="-")

    def __enter__(self) -> "ProgressReport":
        self.bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.stop()

    def advance(self) -> None:
        """One step is done."""
        self.bar.advance(self.task)

    def loss(self, loss: float) -> None:
        """Show the mean loss of the epoch so far."""
        self.bar.update(self.task, loss=f"{loss:.4g}")

    def epoch(self, row: Mapping[str, float], parts: Mapping[str, float]) -> None:
        """Print the epoch's main numbers, and reset the bar for the next epoch.

        Args:
            row: of the log; numbers below others ("validation/rate/z") are left to metrics.jsonl.
            parts: of the loss; the largest are printed.
        """
        if not self.active:
            return
        line = f"epoch {row['epoch']}/{self.epochs}  {'  '.join(printed(row, parts))}"
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)
        following = min(int(row["epoch"]) + 1, self.epochs)
        self.bar.reset(self.task, description=f"epoch {following}/{self.epochs}")


def printed(row: Mapping[str, float], parts: Mapping[str, float]) -> list[str]:
    """The main numbers of an epoch.

    Example:

        >>> printed({"epoch": 1, "step": 9, "loss": 98.25, "distortion": 98.25, "critic/z": 0.5}, {"distortion": 98.25})
        ['loss 98.25', 'distortion 98.25']
    """
    largest = sorted(parts, key=lambda name: -abs(parts[name]))[:MAIN_PARTS]
    names = [name for name in row if name not in ("epoch", "step", *parts) and "/" not in name]
    names += [name for name in parts if name in largest and name in row]
    return [f"{name} {row[name]:.5g}" for name in names]
