"""Experiments are called in process: ``main(Config(...))``."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _random_state_kept():
    """Experiments set torch's global seed."""
    with torch.random.fork_rng(devices=[]):
        yield


@pytest.fixture(autouse=True)
def _wide_console(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
