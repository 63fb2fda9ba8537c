"""How many threads the compiled core uses.

By default one for every core that the process may use. In order of precedence: `set_max_threads` or
`thread_limit` here, ``threadpoolctl.threadpool_limits``, and the environment variable
``OMP_NUM_THREADS``, which is read when the process starts. The first two hold for the thread of the
interpreter that calls them (as OpenMP has it); other threads begin with the default. Runs over a
cohort share the number out between the cases that they work on at a time. No result depends on it.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

from twintrack import _core

__all__ = ["max_threads", "set_max_threads", "thread_limit"]


def max_threads() -> int:
    """Return the number of threads that the next call into the core may use."""
    return _core.max_threads()


def set_max_threads(threads: int) -> None:
    """Let calls from this thread use at most so many threads.

    Raises
    ------
    ValueError
        `threads` is less than 1.
    """
    if threads < 1:
        raise ValueError(f"threads is {threads}; at least one is needed")
    try:
        # Looked up through the module, which is linked with the OpenMP library it was built for.
        ctypes.CDLL(_core.__file__).omp_set_num_threads(ctypes.c_int(threads))
    except (OSError, AttributeError):
        # Built without OpenMP: the core looks at the variable, for all threads, each time.
        os.environ["OMP_NUM_THREADS"] = str(threads)


@contextmanager
def thread_limit(threads: int) -> Iterator[None]:
    """Use at most so many threads inside of the block; raises as `set_max_threads`."""
    before = max_threads()
    set_max_threads(min(threads, before))
    try:
        yield
    finally:
        set_max_threads(before)
