"""A lock for two threads that both want the device again and again."""

from __future__ import annotations

import threading
from collections import deque


class Turns:
    """A lock that is given in the order in which it was asked for.

    The networks of one case and the coarse network of the next one take turns with the device. With
    an ordinary lock the first, who asks again at once, would keep the second waiting to the end.
    """

    def __init__(self) -> None:
        self._state = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._taken = False

    def __enter__(self) -> None:
        with self._state:
            if not self._taken:
                self._taken = True
                return
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        try:
            mine.acquire()
        except BaseException:  # a signal: nobody would end this turn
            with self._state:
                given = mine not in self._waiting
                if not given:
                    self._waiting.remove(mine)
            if given:
                self.__exit__()
            raise

    def __exit__(self, *error: object) -> None:
        with self._state:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False
