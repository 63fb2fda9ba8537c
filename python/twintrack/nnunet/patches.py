"""The patches of a sliding window, which nnU-Net cuts in a thread of its own."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from queue import Empty, Queue
from typing import Any


class Patches(list[Any]):
    """Where the patches lie, for one call of nnU-Net's sliding window.

    nnU-Net's thread goes through them and puts each patch into a short queue. If the network fails,
    nobody takes them any more and the thread would wait for ever, with the image on the device;
    if the thread fails, the network would.

    Attributes
    ----------
    failed : bool
        Whether the thread could not go on: what the window has returned is not whole.
    """

    def __init__(self, places: Any) -> None:
        super().__init__(places)
        self.failed: bool = False
        self._stopped = False
        self._thread: threading.Thread | None = None
        self._queue: Queue[Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        """Yield each place, until they are stopped."""
        self._thread = threading.current_thread()
        # The queue is a local name of whoever iterates. Where another version has none of that
        # name, all is as nnU-Net does it.
        queue = sys._getframe(1).f_locals.get("q")
        self._queue = queue if isinstance(queue, Queue) else None
        try:
            for place in super().__iter__():
                if self._stopped:
                    return
                yield place
        except GeneratorExit:  # the thread has left its loop by an exception
            self.failed = True
            if self._queue is not None:
                self._queue.put("end")  # nnU-Net's own word for it
            raise

    def stop(self) -> None:
        """Let the thread end, if it has not."""
        self._stopped = True
        if self._queue is not None:
            # From now on the thread puts one patch and the word "end": there is room for two.
            with contextlib.suppress(Empty):
                while True:
                    self._queue.get_nowait()
        if self._thread not in (None, threading.current_thread()):
            self._thread.join(10)
