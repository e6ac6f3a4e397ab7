"""Stopping on SIGINT and SIGTERM between two steps, never inside one."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """The signal that requested a stop, if there was one.

    Example:

        >>> request = StopRequest()
        >>> bool(request), request.signal_name
        (False, 'no signal')
    """

    signal_number: int | None = None

    def __bool__(self) -> bool:
        return self.signal_number is not None

    @property
    def signal_name(self) -> str:
        """Such as "SIGTERM"."""
        return "no signal" if self.signal_number is None else signal.Signals(self.signal_number).name


@contextmanager
def stop_on_signals(active: bool) -> Iterator[StopRequest]:
    """Record SIGINT and SIGTERM instead of ending the process; a second signal interrupts at once.

    Without effect where ``active`` is false, and outside the main thread, where Python allows no handlers.

    Example:

        >>> with stop_on_signals(active=False) as request:
        ...     bool(request)
        False
    """
    request = StopRequest()
    if not active or threading.current_thread() is not threading.main_thread():
        yield request
        return

    def record(signal_number: int, frame: FrameType | None) -> None:
        if request:
            signal.default_int_handler(signal_number, frame)
        request.signal_number = signal_number

    before = {number: signal.signal(number, record) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
