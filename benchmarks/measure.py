"""Time, peak memory and the limits of the machine, measured in the running process."""

from __future__ import annotations

import ctypes
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PROC = Path("/proc/self")
_PIECE = 1 << 22  # bytes that a core takes at a time


@dataclass(frozen=True)
class Measured:
    """One work, done several times.

    Attributes
    ----------
    seconds : float
        Median.
    fastest, slowest : float
        Seconds.
    runs : int
    peak_bytes : int or None
        Most memory that the first run held beyond what the process held before it, its result
        included. None where the system does not tell.
    answer
        What the last run returned.
    """

    seconds: float
    fastest: float
    slowest: float
    runs: int
    peak_bytes: int | None
    answer: Any

    @classmethod
    def of(cls, seconds: Sequence[float], peak_bytes: int | None, answer: Any = None) -> Measured:
        """Return what runs that took so long amount to; the first only if it stayed the only one.

        Later runs find warm caches and the memory of earlier ones ready.
        """
        later = seconds[1:] or seconds
        return cls(statistics.median(later), min(later), max(later), len(later), peak_bytes, answer)


def measure(
    work: Callable[[], Any],
    runs: int,
    budget: float = 15.0,
    between: Callable[[], Any] = lambda: None,
) -> Measured:
    """Do `work` once, for its memory, and then at most `runs` times, fewer once `budget` is spent.

    `between` is called after every time; `budget` is in seconds of `work`.
    """
    memory = PeakMemory()
    seconds: list[float] = []
    peak = None
    answer = None
    while len(seconds) <= runs and (not seconds or sum(seconds) < budget):
        answer = None  # a result is not held beside the next one
        started = time.perf_counter()
        answer = work()
        seconds.append(time.perf_counter() - started)
        peak = memory.bytes() if len(seconds) == 1 else peak
        between()
    return Measured.of(seconds, peak, answer)


def in_rounds(
    works: Mapping[str, Callable[[], Any]], runs: int, budget: float = 15.0
) -> dict[str, Measured]:
    """Measure each as `measure` does, in rounds of one run of each, so that all share the machine.

    A round leaves out the works that have had their runs or their `budget`. Answers stay until
    their work is done again.
    """
    seconds: dict[str, list[float]] = {name: [] for name in works}
    peaks: dict[str, int | None] = {}
    answers: dict[str, Any] = {}
    for _ in range(runs + 1):
        for name, work in works.items():
            if sum(seconds[name]) >= budget:
                continue
            answers.pop(name, None)
            memory = None if name in peaks else PeakMemory()
            started = time.perf_counter()
            answers[name] = work()
            seconds[name].append(time.perf_counter() - started)
            if memory is not None:
                peaks[name] = memory.bytes()
    return {name: Measured.of(seconds[name], peaks[name], answers[name]) for name in works}


def copy_seconds(source: NDArray[Any], destination: NDArray[Any], runs: int = 9) -> float:
    """Seconds in which all cores copy one contiguous array to another: a threaded memcpy."""

    read, written = (array.reshape(-1).view(np.uint8) for array in (source, destination))

    def copy(part: slice) -> None:
        written[part] = read[part]

    return _on_all_cores([partial(copy, part) for part in _parts(read)], runs)


def read_seconds(arrays: Sequence[NDArray[Any]], runs: int = 9) -> float:
    """Seconds in which all cores read contiguous arrays once and do next to nothing with them.

    One array after the other in each run, so that no more of them is in a cache than in any pass.
    """
    flat = [array.reshape(-1).view(np.uint8) for array in arrays]

    def read(part: NDArray[np.uint8]) -> None:
        np.bitwise_or.reduce(part[: part.size // 8 * 8].view(np.uint64))

    return _on_all_cores(
        [partial(read, array[part]) for array in flat for part in _parts(array)], runs
    )


def fill_seconds(array: NDArray[Any], runs: int = 9) -> float:
    """Seconds in which all cores write a contiguous array."""
    target = array.reshape(-1).view(np.uint8)

    def fill(part: slice) -> None:
        target[part] = 1

    return _on_all_cores([partial(fill, part) for part in _parts(target)], runs)


def _parts(array: NDArray[np.uint8]) -> list[slice]:
    return [slice(first, first + _PIECE) for first in range(0, array.size, _PIECE)]


def _on_all_cores(tasks: Sequence[Callable[[], None]], runs: int) -> float:
    seconds = []
    with ThreadPoolExecutor(cores()) as pool:
        for _ in range(runs + 1):
            started = time.perf_counter()
            for _ in pool.map(lambda task: task(), tasks):
                pass
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_bytes() -> int | None:
    """Memory that can still be had, None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))


def machine(packages: Sequence[str]) -> str:
    """One line with the processor, the cores used, and the versions of `packages`."""
    from twintrack import _core

    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.machine()
    versions = [f"{name} {_version(name)}" for name in packages]
    return (
        f"{model}, {cores()} cores, {_core.max_threads()} threads, {_core.instruction_set()}; "
        f"Python {platform.python_version()}, " + ", ".join(versions)
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


class PeakMemory:
    """The most memory that the process holds from now on, beyond what it holds now."""

    def __init__(self) -> None:
        _give_back_freed_memory()
        try:
            (_PROC / "clear_refs").write_text("5")  # forget the peak so far
            self._before: int | None = _status("VmRSS")
        except OSError:
            self._before = None
        self._most = 0

    def bytes(self) -> int | None:
        """Bytes at the peak so far; None where the system does not tell (other than Linux)."""
        if self._before is None:
            return None
        # The kernel's own counts of one process differ by up to a few hundred kB.
        self._most = max(self._most, _status("VmHWM") - self._before)
        return self._most


def _give_back_freed_memory() -> None:
    # What the allocator keeps of freed memory would be used again and not seen as growth.
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):  # another C library than glibc
        return


def count(text: str) -> int:
    """A whole number that may be written as 1e8."""
    return int(float(text))


def power(number: int) -> str:
    """1e8 for 100000000."""
    return f"{number:.3g}".replace("e+0", "e").replace("e+", "e")


def duration(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def megabytes(size: int | None) -> str:
    return "unknown" if size is None else f"{size / 1e6:.1f} MB"


def _status(field: str) -> int:
    lines = (_PROC / "status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
