"""What ppvae raises. Each message says what was expected, what came, and the remedy."""

from typing import Any


class PpvaeError(Exception):
    """Root of every error that ppvae raises on purpose."""


class ContractError(PpvaeError, ValueError):
    """A model, a guide or their input breaks the contract of :mod:`ppvae.engine.contract`."""


class DataError(PpvaeError, ValueError):
    """A data set is absent, damaged, or not what was asked for."""


class CheckpointError(PpvaeError, RuntimeError):
    """A checkpoint is damaged, of another pair, or not a checkpoint at all."""


class DeviceError(PpvaeError, RuntimeError):
    """A device was asked for that is not there."""


class NonFiniteLossError(PpvaeError, FloatingPointError):
    """The training loss turned NaN or infinite; the last good checkpoint was kept."""


class Interrupted(KeyboardInterrupt):
    """Training was stopped by a signal, after its state was saved.

    It is a ``KeyboardInterrupt`` and no ``Exception``, so that ``except Exception`` does not swallow it.
    """

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.signal_number = signal_number


def require_count(name: str, value: Any) -> int:
    """A whole number of at least 1, numpy's included, as an int. Raises ValueError or TypeError for anything else."""
    try:
        count = value.__index__()
    except AttributeError:
        raise TypeError(f"expected {name} to be a whole number, got {value!r}") from None
    if count < 1:
        raise ValueError(f"expected {name} of at least 1, got {count}")
    return count
