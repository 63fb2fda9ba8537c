"""Cases that go through a device one after the other, while others are read and written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from twintrack.runs.fair_lock import FairLock

STEPS = ("read", "compute", "write")


class AssemblyLine:
    """Lets one case at a time into each step, in the order in which they entered the first.

    A case leaves a step when it is let into the next one. So at most three are held, however many
    threads there are: one is read, or has been, one is computed, one is written.
    """

    def __init__(self) -> None:
        self._places = {step: FairLock() for step in STEPS}

    @contextmanager
    def case(self) -> Iterator[Callable[[str], None]]:
        """Give what a case calls before each step, and which may wait."""
        held: FairLock | None = None

        def enter(step: str) -> None:
            nonlocal held
            self._places[step].acquire()
            if held is not None:
                held.release()
            held = self._places[step]

        try:
            yield enter
        finally:
            if held is not None:
                held.release()
