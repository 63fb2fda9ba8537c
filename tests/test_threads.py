from __future__ import annotations

import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from twintrack import ScoreTally, _core
from twintrack.threads import max_threads, set_max_threads, thread_limit


def tally():
    score = np.random.default_rng(0).random(300_000, np.float32)
    return ScoreTally(1).update(score, [score > 0.5])


def test_limit_holds_in_the_block_and_changes_no_result():
    before = max_threads()
    expected = tally()
    with thread_limit(1):
        assert max_threads() == _core.max_threads() == 1
        assert tally() == expected
        with thread_limit(5):  # never more than around it
            assert max_threads() == 1
    assert max_threads() == before


def test_number_can_be_set_and_belongs_to_the_thread():
    before = max_threads()
    elsewhere = []
    try:
        set_max_threads(3)
        assert max_threads() == 3
        expected = tally()
        thread = threading.Thread(target=lambda: elsewhere.append(max_threads()))
        thread.start()
        thread.join()
        with threadpool_limits(1):
            assert max_threads() == 1
            assert tally() == expected
        assert max_threads() == 3
    finally:
        set_max_threads(before)
    assert elsewhere == [before]


@pytest.mark.parametrize("threads", [0, -1])
def test_no_threads_are_refused(threads):
    with pytest.raises(ValueError, match=f"threads is {threads}"):
        set_max_threads(threads)
    with pytest.raises(ValueError, match=f"threads is {threads}"), thread_limit(threads):
        pass
