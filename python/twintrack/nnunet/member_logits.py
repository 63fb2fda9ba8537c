"""Where the logits of a case's members are: on the device, or moved to the host to make room."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from twintrack.arrays.libraries import device_kind


class MemberLogits:
    """The members' logits of a case, where the networks left them unless the device needs room."""

    def __init__(self) -> None:
        self._members: list[Any] = []
        self._lock = threading.Lock()

    def append(self, logits: Any) -> None:
        """Add a member's."""
        with self._lock:
            self._members.append(logits)

    def to_host(self) -> bool:
        """Whether any were on the device."""
        with self._lock:
            return move_to_host(self._members)

    def to_one_place(self) -> None:
        """Move them to the host if some are there already."""
        with self._lock:
            if any(device_kind(member) is None for member in self._members):
                move_to_host(self._members)

    @contextlib.contextmanager
    def taken(self) -> Iterator[list[Any]]:
        """Give the list to a thread, during whose work nothing is moved, and then let it go."""
        with self._lock:
            try:
                yield self._members
            finally:
                self._members.clear()


def move_to_host(members: list[Any]) -> bool:
    """Move tensors one after the other, so that each makes room at once."""
    moved = False
    for k, member in enumerate(members):
        if device_kind(member) is not None:
            members[k] = member.cpu()
            moved = True
    return moved
