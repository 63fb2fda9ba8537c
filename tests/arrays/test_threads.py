from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from twintrack import ScoreTally, _core
from twintrack.arrays.threads import max_threads, set_max_threads, thread_limit
from twintrack.runs.engine import flow_through


def tally():
    score = np.random.default_rng(0).random(300_000, np.float32)
    return ScoreTally(1).update(score, [score > 0.5])


def openmp_threads():
    """OpenMP's own number for this thread, by which torch goes too."""
    library = ctypes.CDLL(_core.__file__)  # linked with the OpenMP that it was built for
    if not hasattr(library, "omp_get_max_threads"):
        pytest.skip("built without OpenMP")
    return library.omp_get_max_threads()


def test_limit_holds_in_the_block_and_changes_no_result():
    before = max_threads()
    expected = tally()
    with thread_limit(1):
        assert max_threads() == _core.max_threads() == 1
        assert tally() == expected
        with thread_limit(5):  # never more than around it
            assert max_threads() == 1
    assert max_threads() == before


def test_number_can_be_set_and_lifted_and_belongs_to_the_thread():
    before = max_threads()
    elsewhere = []
    try:
        set_max_threads(3)
        assert max_threads() == 3
        expected = tally()
        thread = threading.Thread(target=lambda: elsewhere.append(max_threads()))
        thread.start()
        thread.join()
        with threadpool_limits(1):  # what is set here comes first
            assert max_threads() == 3
            assert tally() == expected
    finally:
        set_max_threads(None)
    assert elsewhere == [before]
    assert max_threads() == before
    with threadpool_limits(1):
        assert max_threads() == 1
        assert tally() == expected


def test_openmp_has_its_own_number_again_after_a_block():
    before = max_threads()
    with threadpool_limits(before + 5):
        with thread_limit(2):
            assert max_threads() == 2
        assert max_threads() == before + 5
    assert max_threads() == before


def test_neither_openmp_nor_the_environment_is_told():
    environment = dict(os.environ)
    with threadpool_limits(4):
        before = openmp_threads()
        with thread_limit(1):
            assert openmp_threads() == before
            tally()
        set_max_threads(2)
        try:
            assert openmp_threads() == before
        finally:
            set_max_threads(None)
    inside = list(flow_through(range(4), lambda _: [(max_threads(), openmp_threads())], workers=2))
    assert {openmp for _, openmp in inside} == {openmp_threads()}
    assert {limit for limit, _ in inside} == {max(1, max_threads() // 2)}
    assert dict(os.environ) == environment


# How many threads OpenMP has started, which it keeps, after a map was applied under each limit.
PROGRAM = """
import os
import numpy as np
from twintrack import CalibrationMap
from twintrack.arrays.threads import set_max_threads

score = np.random.default_rng(0).random(2_000_000, np.float32)
before = len(os.listdir("/proc/self/task"))
for limit in (1, 3, None):
    set_max_threads(limit)
    CalibrationMap([0, 1], [0, 0.5])(score)
    print(len(os.listdir("/proc/self/task")) - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_the_core_uses_as_many_threads_as_it_may(environment):
    openmp_threads()
    given = {**environment, "OMP_NUM_THREADS": "5"}
    command = [sys.executable, "-c", PROGRAM]
    result = subprocess.run(command, env=given, capture_output=True, text=True, check=True)
    most = 2 * len(os.sched_getaffinity(0))  # others would wait for these
    assert [*map(int, result.stdout.split())] == [min(limit, most) - 1 for limit in (1, 3, 5)]


@pytest.mark.parametrize("threads", [0, -1, 2**31])
def test_no_threads_are_refused(threads):
    with pytest.raises(ValueError, match=f"threads is {threads}"):
        set_max_threads(threads)
    with pytest.raises(ValueError, match=f"threads is {threads}"), thread_limit(threads):
        pass
    with pytest.raises(ValueError, match="threads is -1; it must be at least 1"):
        _core.set_thread_limit(-1)


@pytest.mark.parametrize("threads", ["2", 1.5])
def test_what_is_no_number_of_threads_is_refused(threads):
    with pytest.raises(TypeError, match="threads is"):
        set_max_threads(threads)
