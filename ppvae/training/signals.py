"""Stopping on SIGINT and SIGTERM between two steps, never inside one."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class StopRequest:
    """Which signal asked for a stop, if any did."""

    signal_number: int | None = None

    def __bool__(self) -> bool:
        return self.signal_number is not None

    @property
    def signal_name(self) -> str:
        return signal.Signals(self.signal_number).name


@contextmanager
def stop_on_signals(active: bool) -> Iterator[StopRequest]:
    """Note SIGINT and SIGTERM instead of dying of them; a second SIGINT interrupts at once.

    Without effect where ``active`` is false, and outside the main thread, which alone may do this.
    """
    request = StopRequest()
    if not active or threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(signal_number, frame) -> None:
        if request:
            signal.default_int_handler(signal_number, frame)
        request.signal_number = signal_number

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
