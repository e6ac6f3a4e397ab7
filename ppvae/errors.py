"""The exceptions of ppvae. Each message states what was expected, what was given, and how to fix it."""

import math
from typing import Any


class PpvaeError(Exception):
    """Base class of the exceptions of ppvae, except :class:`Interrupted`.

    Example:

        >>> try:
        ...     raise DataError("the file is damaged")
        ... except PpvaeError as error:
        ...     print(error)
        the file is damaged
    """


class ContractError(PpvaeError, ValueError):
    """A model, a guide or their input breaks the contract of :mod:`ppvae.engine.contract`.

    Example:

        >>> import ppvae, torch
        >>> try:
        ...     ppvae.check_pair(torch.sin, torch.cos, torch.zeros(2, 1))
        ... except ppvae.ContractError as error:
        ...     print(str(error)[:47])
        expected model and guide to be PyroModules (the
    """


class DataError(PpvaeError, ValueError):
    """A data set is absent or damaged, or has another form than was requested.

    Example:

        >>> import ppvae, torch
        >>> try:
        ...     ppvae.Dataset(torch.zeros(2, 1), binarization="often")
        ... except ppvae.DataError as error:
        ...     print(str(error)[:37])
        expected binarization to be one of ('
    """


class CheckpointError(PpvaeError, RuntimeError):
    """A checkpoint is damaged, of another pair, or not a checkpoint at all.

    Example:

        >>> import ppvae
        >>> try:
        ...     ppvae.load_players("absent.safetensors", [])
        ... except ppvae.CheckpointError as error:
        ...     print(error)
        expected a checkpoint at absent.safetensors, found none
    """


class DeviceError(PpvaeError, RuntimeError):
    """The requested device is not available.

    Example:

        >>> import ppvae
        >>> from ppvae.training.device import resolve_device
        >>> try:
        ...     resolve_device("cuda:99")
        ... except ppvae.DeviceError as error:
        ...     print(str(error)[:8])
        expected
    """


class NonFiniteLossError(PpvaeError, FloatingPointError):
    """The training loss turned NaN or infinite; the last good checkpoint was kept.

    Example:

        >>> try:
        ...     raise NonFiniteLossError("expected a finite loss, got nan at step 3")
        ... except FloatingPointError as error:
        ...     print(error)
        expected a finite loss, got nan at step 3
    """


class Interrupted(KeyboardInterrupt):
    """Training was stopped by a signal, after its state was saved.

    It is a ``KeyboardInterrupt`` and no ``Exception``, so that ``except Exception`` does not swallow it.

    Example:

        >>> import signal
        >>> try:
        ...     raise Interrupted("stopped by SIGTERM", signal.SIGTERM)
        ... except Interrupted as stop:
        ...     print(stop, stop.signal_number == signal.SIGTERM)
        stopped by SIGTERM True
    """

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.signal_number = signal_number


def require_count(name: str, value: Any, least: int = 1) -> int:
    """A whole number of at least ``least``, numpy's included, as an int. Raises ValueError or TypeError otherwise.

    Example:

        >>> require_count("num_particles", 5)
        5
    """
    try:
        count = value.__index__()
    except AttributeError:
        raise TypeError(f"expected {name} to be a whole number, got {value!r}") from None
    if count < least:
        raise ValueError(f"expected {name} of at least {least}, got {count}")
    return count


def require_positive(name: str, value: Any) -> float:
    """A finite number above 0, as a float. Raises ValueError or TypeError for anything else.

    Example:

        >>> require_positive("learning_rate", 0.1)
        0.1
    """
    if isinstance(value, str) or not hasattr(value, "__float__"):
        raise TypeError(f"expected {name} to be a number, got {value!r}")
    if not 0 < float(value) < math.inf:
        raise ValueError(f"expected {name} above 0 and finite, got {value}")
    return float(value)
