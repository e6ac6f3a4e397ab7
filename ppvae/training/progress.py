"""The progress of a run: a bar on a terminal, a line an epoch elsewhere."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class ProgressReport:
    """A context that shows steps, the running loss and the time left."""

    def __init__(self, epochs: int, steps_per_epoch: int, active: bool):
        self.epochs, self.steps_per_epoch, self.active = epochs, steps_per_epoch, active
        self.console = Console()
        columns = [
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("loss {task.fields[loss]}"),
        ]
        self.bar = Progress(*columns, console=self.console, disable=not (active and self.console.is_terminal))
        self.task = self.bar.add_task(f"epoch 1/{epochs}", total=steps_per_epoch, loss="-")

    def __enter__(self) -> "ProgressReport":
        self.bar.start()
        return self

    def __exit__(self, *exception) -> None:
        self.bar.stop()

    def advance(self) -> None:
        self.bar.advance(self.task)

    def loss(self, loss: float) -> None:
        self.bar.update(self.task, loss=f"{loss:.4g}")

    def epoch(self, row: dict) -> None:
        """Print the epoch's numbers, and begin the bar of the next."""
        if not self.active:
            return
        numbers = "  ".join(f"{name} {_short(value)}" for name, value in row.items() if name not in ("epoch", "step"))
        self.console.print(f"epoch {row['epoch']}/{self.epochs}  {numbers}", highlight=False)
        self.bar.reset(self.task, description=f"epoch {min(row['epoch'] + 1, self.epochs)}/{self.epochs}")


def _short(value: float) -> str:
    return f"{value:.5g}"
