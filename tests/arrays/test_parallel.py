import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import twintrack as tt


def tally():
    rng = np.random.default_rng(0)
    score = rng.random(400_000, dtype=np.float32)
    return tt.ScoreTally(2).update(score, rng.random((2, 400_000)) < score)


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
@pytest.mark.skipif("TWINTRACK_SANITIZED" in os.environ, reason="the sanitizer does not survive it")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_does_not_hang():
    # GNU's OpenMP hangs in a child of a process that has used it, as workers of data loaders are.
    with threadpool_limits(2, "openmp"):
        expected = tally()
        context = multiprocessing.get_context("fork")
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=lambda: sender.send(tally()))
        child.start()
        try:
            assert receiver.poll(30), "the child hangs"
            assert receiver.recv() == expected
        finally:
            child.kill()
            child.join()
            receiver.close()
            sender.close()
            child.close()


# Anyone's OpenMP loop, and then a fork, before TwinTrack's first.
OTHERS_FIRST = """
import ctypes, os, signal
from pathlib import Path
import numpy as np
import twintrack as tt

maps = Path("/proc/self/maps").read_text().splitlines()
library = next(line.split()[-1] for line in maps if "libgomp" in line)
work = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: None)
ctypes.CDLL(library).GOMP_parallel(work, None, 2, 0)
child = os.fork()
if child == 0:
    signal.alarm(20)
    scores = np.random.default_rng(0).random(400_000, np.float32)
    tt.ScoreTally(1).update(scores, scores[np.newaxis] > 0.5)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0, "the child hangs"
"""


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
@pytest.mark.skipif("TWINTRACK_SANITIZED" in os.environ, reason="the sanitizer does not survive it")
def test_a_forked_process_does_not_hang_where_others_have_used_openmp(environment):
    if "libgomp" not in Path("/proc/self/maps").read_text():
        pytest.skip("compiled with another OpenMP")
    command = [sys.executable, "-W", "ignore", "-c", OTHERS_FIRST]
    given = {**environment, "OMP_NUM_THREADS": "2"}
    result = subprocess.run(command, env=given, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_threads_that_add_to_one_tally_lose_nothing():
    score = np.random.default_rng(0).random(1 << 16, dtype=np.float32)
    mask = score > 0.5
    for made in (tt.ScoreTally(1), tt.CaseTally(1)):
        expected = type(made)(1)
        for _ in range(40):
            expected += type(made)(1).update(score, [mask])

        def add(tally=made):
            for k in range(10):
                if k % 5 == 4:
                    tally += type(tally)(1).update(score, [mask])
                else:
                    tally.update(score, [mask])
                assert tally.voxels % score.size == 0

        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(add) for _ in range(4)]:
                done.result()
        assert made == expected
