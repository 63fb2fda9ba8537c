"""Runs killed at random moments."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path


def kill_and_finish(
    start: Callable[[], subprocess.Popen], folder: Path, records: str, counts: tuple[int, ...]
) -> None:
    """SIGKILL a run soon after it has as many of the `records` as each count says; then finish it.

    `records` is a pattern in `folder`.
    """
    rng = random.Random(7)
    killed = 0
    for count in counts:
        process = start()
        deadline = time.monotonic() + 20
        while process.poll() is None and time.monotonic() < deadline:
            if len(list(folder.glob(records))) >= count:
                time.sleep(rng.random() * 0.005)
                break
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
    assert killed >= 1  # a run may have been quicker
    assert start().wait() == 0
