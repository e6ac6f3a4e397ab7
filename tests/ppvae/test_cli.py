"""Command lines: settings, errors and stops."""

import signal
from dataclasses import dataclass

import pytest

import ppvae
from ppvae import cli


@dataclass(frozen=True)
class Config:
    """Settings."""

    epochs: int = 1


def end_of(main, monkeypatch, *options: str) -> int:
    monkeypatch.setattr("sys.argv", ["script", *options])
    with pytest.raises(SystemExit) as end:
        cli.run(main, Config, "A script.")
    return end.value.code


def test_run_reads_settings_from_the_command_line(monkeypatch):
    seen = []
    monkeypatch.setattr("sys.argv", ["script", "--epochs", "3"])
    cli.run(seen.append, Config, "A script.")
    assert seen == [Config(epochs=3)]


def test_run_prints_the_message_of_an_error_and_exits_with_1(monkeypatch, capsys):
    def main(config):
        raise ppvae.ContractError(f"expected sites ['z'], got {config.epochs} [bold]")

    assert end_of(main, monkeypatch) == 1
    assert "error: expected sites ['z'], got 1 [bold]" in capsys.readouterr().err


def test_run_exits_with_the_signal_of_a_stop(monkeypatch, capsys):
    def main(config):
        raise ppvae.Interrupted("stopped by SIGTERM at step 3", signal.SIGTERM)

    assert end_of(main, monkeypatch) == 128 + signal.SIGTERM
    assert "at step 3" in capsys.readouterr().err


def test_run_does_not_catch_other_errors(monkeypatch):
    def main(config):
        raise AttributeError("a defect")

    monkeypatch.setattr("sys.argv", ["script"])
    with pytest.raises(AttributeError):
        cli.run(main, Config, "A script.")
