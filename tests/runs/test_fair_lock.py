from __future__ import annotations

import signal
import threading
import time

import pytest

from twintrack.runs.fair_lock import FairLock


def test_lock_is_given_in_order():
    # With an ordinary lock the main thread, which asks again at once, would win every time.
    lock, order = FairLock(), []

    def other():
        with lock:
            order.append("other")

    thread = threading.Thread(target=other)
    with lock:
        thread.start()
        while not lock._waiting:
            time.sleep(0.001)
    with lock:
        order.append("main")
    thread.join()
    assert order == ["other", "main"]


def test_interrupted_wait_leaves_no_place_in_the_queue():
    # The lock would be given to nobody, and the pipeline of a notebook never run again.
    lock, begun, ended = FairLock(), threading.Event(), threading.Event()

    def other():
        with lock:
            begun.set()
            while not lock._waiting:
                time.sleep(0.001)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            ended.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    begun.wait(10)
    with pytest.raises(KeyboardInterrupt), lock:
        pass
    ended.set()
    thread.join()
    assert not lock._waiting
    assert not lock._taken
