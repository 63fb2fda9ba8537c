"""What this process may use of its machine: cores and memory, limits of containers included.

Docker, Kubernetes, SLURM and systemd limit a process through its control groups, of version 1 or 2,
and each group is held to the limits of all that it lies in.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

_NO_LIMIT = 1 << 60  # version 1 writes numbers close to 2⁶³ where there is none


def available_memory(root: Path = Path("/")) -> int:
    """Return the bytes of memory that this process could take now.

    Parameters
    ----------
    root
        Where ``proc`` and ``sys`` lie.
    """
    import psutil  # not on a machine that computes alone

    available: int = psutil.virtual_memory().available
    return max(0, min([available, *_memory_left(root)]))


def available_cores(root: Path = Path("/")) -> int:
    """Return how many cores this process may use, at least 1: its affinity, and CPU quotas.

    A quota of 2.5 cores gives 3, for the rest of the third would be lost.

    Parameters
    ----------
    root
        Where ``proc`` and ``sys`` lie.
    """
    try:
        affine = len(os.sched_getaffinity(0))
    except AttributeError:  # systems without it
        affine = os.cpu_count() or 1
    return max(1, min([affine, *map(math.ceil, _cpu_quotas(root))]))


def _memory_left(root: Path) -> Iterator[int]:
    for group in _groups(root, ""):
        limit = _number(group / "memory.max")
        used = _number(group / "memory.current")
        if limit is not None and used is not None:
            yield limit - used + _statistic(group, "inactive_file")
    for group in _groups(root, "memory"):
        limit = _number(group / "memory.limit_in_bytes")
        used = _number(group / "memory.usage_in_bytes")
        if limit is not None and used is not None and limit < _NO_LIMIT:
            yield limit - used + _statistic(group, "total_inactive_file")


def _cpu_quotas(root: Path) -> Iterator[float]:
    for group in _groups(root, ""):
        quota, _, period = _text(group / "cpu.max").partition(" ")
        if quota.isdigit() and period.isdigit() and int(period):
            yield int(quota) / int(period)
    for group in _groups(root, "cpu"):
        allowed = _number(group / "cpu.cfs_quota_us")
        per = _number(group / "cpu.cfs_period_us")
        if allowed is not None and per and allowed > 0:
            yield allowed / per


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of this process's group and of all that it lies in.

    `controller` is one of version 1, or "" for version 2. A container may see its own group as the
    root of the tree, whatever path its process file gives.
    """
    mounts = ["sys/fs/cgroup", "sys/fs/cgroup/unified"]
    if controller:
        mounts = [f"sys/fs/cgroup/{name}" for name in (controller, "cpu,cpuacct", "cpuacct,cpu")]
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, names, path = (*line.split(":", 2), "", "")[:3]
        if controller not in names.split(","):
            continue
        for mount in (root / name for name in mounts):
            group = mount / path.lstrip("/")
            if ".." in group.parts:  # outside of what the container sees
                group = mount
            yield from (place for place in (group, *group.parents) if place.is_relative_to(mount))


def _statistic(group: Path, name: str) -> int:
    """Return a number of a group's memory.stat: the pages of files count as used but can go."""
    for line in _text(group / "memory.stat").splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.isdigit():
            return int(value)
    return 0


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.lstrip("-").isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
