"""What the peers written in numba share: as many threads as ours, and compilation before timing.

They are what a good engineer writes who finds NumPy slow. Every function is compiled when the small
inputs are done, so none of that is timed; nothing is kept on disk. Inner loops work on slices with
unsigned indices: numba makes vector instructions of them, which it does not of indices that could
be negative. Functions that run in parallel make no arrays, each of which would be compiled as a
loop of its own, for seconds.
"""

from __future__ import annotations

import numba

from twintrack.arrays.threads import max_threads


def use_our_threads() -> int:
    """Give numba as many threads as ours has, as far as it was started with so many."""
    threads = min(max_threads(), numba.config.NUMBA_NUM_THREADS)
    numba.set_num_threads(threads)
    return threads
