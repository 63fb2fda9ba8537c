import multiprocessing
import os
import sys

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
