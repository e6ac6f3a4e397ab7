"""What a run prints."""

import io

from rich.console import Console

from ppvae.training.progress import ProgressReport, printed


def screen(text: str) -> list[str]:
    """The lines that stand on a terminal after it has shown a text with cursor movements."""
    lines, row = [""], 0
    text = text.replace("\x1b[?25l", "").replace("\x1b[?25h", "")
    position = 0
    while position < len(text):
        rest = text[position:]
        if rest.startswith("\x1b[2K"):
            lines[row], position = "", position + 4
        elif rest.startswith("\x1b[1A"):
            row, position = max(row - 1, 0), position + 4
        elif rest.startswith("\x1b["):
            position += rest.index("m") + 1
        elif rest[0] == "\r":
            position += 1
        elif rest[0] == "\n":
            row, position = row + 1, position + 1
            lines += [""] * (row + 1 - len(lines))
        else:
            lines[row], position = lines[row] + rest[0], position + 1
    return [line for line in lines if line.strip()]


def show(terminal, active=True):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120, legacy_windows=False)
    with ProgressReport(2, 3, active, console) as report:
        for epoch in (1, 2):
            for _ in range(3):
                report.advance()
                report.loss(98.0)
            report.epoch({"epoch": epoch, "step": 3, "loss": 98.0, "rate/z": 18.0, "critic/z": 0.5}, {"rate/z": 18.0})
    return console.file.getvalue()


LINES = [f"epoch {epoch}/2  loss 98  rate/z 18" for epoch in (1, 2)]


def test_a_finished_run_leaves_no_bar_on_the_terminal():
    shown = show(terminal=True)
    assert "loss 98" in shown
    assert [line.strip() for line in screen(shown)] == LINES


def test_without_a_terminal_there_is_one_line_per_epoch():
    assert show(terminal=False).splitlines() == LINES


def test_nothing_is_printed_where_it_is_not_active():
    assert show(terminal=True, active=False) == ""
    assert show(terminal=False, active=False) == ""


def test_printed_leaves_small_parts_and_numbers_below_others_to_the_file():
    parts = {"a": 1.0, "b": -50.0, "c": 3.0, "d": 20.0, "e": 0.1, "f": 2.0, "g": 4.0}
    row = {"epoch": 1, "step": 2, "loss": 9.0, **parts, "critic/z": 1.0, "validation_loss": 8.0, "validation/a": 1.0}
    assert printed({**row, "accuracy": 0.5}, parts) == [
        "loss 9",
        "validation_loss 8",
        "accuracy 0.5",
        "a 1",
        "b -50",
        "c 3",
        "d 20",
        "f 2",
        "g 4",
    ]
