import os
import signal
import threading
import time

import pytest

from bertrec_utils.data.text import _signals_wait


@pytest.fixture
def another_thread():
    """One that a signal to the process may be delivered to, as are those of BLAS."""
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait)
    thread.start()
    yield
    ended.set()
    thread.join()


@pytest.mark.parametrize("parser_fails", [False, True])
def test_an_interruption_waits_until_the_parser_is_done(parser_fails, another_thread):
    before, steps = signal.signal(signal.SIGINT, signal.default_int_handler), []
    try:
        with pytest.raises(KeyboardInterrupt), _signals_wait():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)
            steps.append("the parser went on")
            if parser_fails:
                raise ValueError
        assert steps and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_signals_are_left_alone_in_a_thread_and_where_they_are_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with _signals_wait():
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    thread_is_done = []

    def work():
        with _signals_wait():
            thread_is_done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert thread_is_done
