"""Work on stored tallies that is told of only if it takes long."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from twintrack.runs.engine import Outcome
from twintrack.runs.progress import Progress

T = TypeVar("T")

_PATIENCE = 2.0  # seconds before there is a bar


def patiently(
    items: Iterable[T],
    progress: Progress,
    work: str,
    number: int,
    size: Callable[[T], tuple[str, int]],
) -> Iterator[T]:
    """Yield the items; tell of them once they have taken two seconds.

    Parameters
    ----------
    items
        Each is finished when the next one is asked for.
    progress
        Told of all of them, from the first on.
    work
        What is done ("Band").
    number
        How many there are.
    size
        Returns an item's name and number of voxels.
    """
    waiting: list[Outcome] = []
    begin = last = time.monotonic()
    shown = False
    try:
        for item in items:
            yield item
            now = time.monotonic()
            name, voxels = size(item)
            waiting.append(Outcome(name, "done", 0, now - last, voxels))
            last = now
            if not shown and now - begin > _PATIENCE:
                shown = True
                progress.start(work, number, 0)
            while shown and waiting:
                progress.case(waiting.pop(0))
    finally:
        if shown:
            progress.stop()
