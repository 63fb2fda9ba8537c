"""How many threads the compiled core uses.

By default one for every core that the process may use. In order of precedence: `set_max_threads` or
`thread_limit` here, ``threadpoolctl.threadpool_limits``, and the environment variable
``OMP_NUM_THREADS``, which is read when the process starts. The first two hold for the thread of the
interpreter that calls them, and for the core alone: OpenMP's own number, by which torch and other
libraries go, and the environment stay as they are. Other threads begin with the default. Runs over
a cohort share the number out between the cases that they work on at a time, and keep to the quota
of a container (`twintrack.arrays.limits`). No result depends on it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from twintrack import _core
from twintrack.arrays.numbers import whole_number

_T = TypeVar("_T")
_R = TypeVar("_R")

_MOST = 2**31 - 1  # that the core can be told of


def max_threads() -> int:
    """Return the number of threads that the next call into the core may use."""
    return _core.max_threads()


def set_max_threads(threads: int | None) -> None:
    """Let calls from this thread use at most so many threads; None lifts the limit.

    Raises
    ------
    ValueError
        `threads` is less than 1.
    TypeError
        It is no whole number.
    """
    _core.set_thread_limit(0 if threads is None else whole_number(threads, "threads", 1, _MOST))


@contextmanager
def thread_limit(threads: int) -> Iterator[None]:
    """Use at most so many threads inside of the block; raises as `set_max_threads`."""
    threads = whole_number(threads, "threads", 1, _MOST)
    before = _core.set_thread_limit(min(threads, max_threads()))
    try:
        yield
    finally:
        _core.set_thread_limit(before)


def ahead(work: Callable[[_T], _R], items: Iterable[_T]) -> Iterator[_R]:
    """Do `work` on some items at a time, in threads, and yield what it returns in their order."""
    threads = max_threads()
    if threads == 1:
        yield from map(work, items)
        return
    waiting: deque[Future[_R]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
