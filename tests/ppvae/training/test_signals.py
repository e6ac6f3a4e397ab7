"""Stop requests."""

import os
import signal
import threading

import pytest

from ppvae.training.signals import stop_on_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stop_on_signals_records_the_first_signal(number):
    before = signal.getsignal(number)
    with stop_on_signals(True) as request:
        assert not request
        os.kill(os.getpid(), number)
        assert request
        assert request.signal_name == number.name
    assert signal.getsignal(number) is before


def test_a_second_signal_interrupts_at_once():
    with stop_on_signals(True):
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_stop_on_signals_is_without_effect_where_it_is_not_active():
    with pytest.raises(KeyboardInterrupt), stop_on_signals(False):
        os.kill(os.getpid(), signal.SIGINT)


def test_stop_on_signals_is_without_effect_in_another_thread():
    requests = []

    def work():
        with stop_on_signals(True) as request:
            requests.append(request)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not requests[0]
    assert requests[0].signal_name == "no signal"
