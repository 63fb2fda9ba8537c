"""Limits of containers, on made-up trees of control groups."""

from __future__ import annotations

import os

import psutil
import pytest

from twintrack.arrays.limits import available_cores, available_memory

MIB = 1 << 20
SLURM = "slurm/uid_7/job_42/step_0"


def tree(root, groups: str, files: dict[str, object]):
    for name, content in {"proc/self/cgroup": groups, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


MEMORY = {
    "version 2, in a container": (
        "0::/",
        {"memory.max": 100 * MIB, "memory.current": 30 * MIB},
        70 * MIB,
    ),
    "pages of files can go": (
        "0::/",
        {
            "memory.max": 100 * MIB,
            "memory.current": 90 * MIB,
            "memory.stat": f"anon {10 * MIB}\nfile {80 * MIB}\ninactive_file {60 * MIB}",
        },
        70 * MIB,
    ),
    "an outer group is the narrower": (
        f"0::/{SLURM}",
        {
            f"{SLURM}/memory.max": "max",
            f"{SLURM}/memory.current": 5 * MIB,
            "slurm/uid_7/job_42/memory.max": 40 * MIB,
            "slurm/uid_7/job_42/memory.current": 8 * MIB,
            "slurm/memory.max": 400 * MIB,
            "slurm/memory.current": 300 * MIB,
        },
        32 * MIB,
    ),
    "version 1, nested": (
        f"12:cpu,cpuacct:/\n4:memory:/{SLURM}\n1:name=systemd:/x",
        {
            f"memory/{SLURM}/memory.limit_in_bytes": 50 * MIB,
            f"memory/{SLURM}/memory.usage_in_bytes": 45 * MIB,
            f"memory/{SLURM}/memory.stat": f"total_inactive_file {20 * MIB}",
            "memory/memory.limit_in_bytes": (1 << 63) - 4096,
            "memory/memory.usage_in_bytes": 1 << 40,
        },
        25 * MIB,
    ),
    "version 1, its path not there": (
        "4:memory:/docker/0123456789ab",
        {"memory/memory.limit_in_bytes": 60 * MIB, "memory/memory.usage_in_bytes": 20 * MIB},
        40 * MIB,
    ),
    "both versions": (
        "4:memory:/a\n0::/a",
        {
            "memory/a/memory.limit_in_bytes": 60 * MIB,
            "memory/a/memory.usage_in_bytes": 20 * MIB,
            "unified/a/cpu.max": "max 100000",
        },
        40 * MIB,
    ),
    "more used than allowed": (
        "0::/",
        {"memory.max": 10 * MIB, "memory.current": 11 * MIB},
        0,
    ),
    "outside of what is seen": (
        "0::/../../other",
        {"memory.max": 30 * MIB, "memory.current": 10 * MIB},
        20 * MIB,
    ),
}


@pytest.mark.parametrize("name", MEMORY)
def test_memory_is_that_of_the_narrowest_group(tmp_path, name):
    groups, files, left = MEMORY[name]
    root = tree(tmp_path, groups, {f"sys/fs/cgroup/{file}": text for file, text in files.items()})
    assert available_memory(root) == left


CORES = {
    "version 2": ("0::/a/b", {"a/cpu.max": "100000 100000", "a/b/cpu.max": "max 100000"}),
    "version 1": (
        "3:cpu,cpuacct:/a",
        {"cpu,cpuacct/a/cpu.cfs_quota_us": 50000, "cpu,cpuacct/a/cpu.cfs_period_us": 100000},
    ),
    "version 1, by its short name": (
        "3:cpu:/a",
        {"cpu/a/cpu.cfs_quota_us": 100000, "cpu/a/cpu.cfs_period_us": 100000},
    ),
}


@pytest.mark.parametrize("name", CORES)
def test_cores_are_those_of_the_quota(tmp_path, name):
    groups, files = CORES[name]
    root = tree(tmp_path, groups, {f"sys/fs/cgroup/{file}": text for file, text in files.items()})
    assert available_cores(root) == 1


def test_part_of_a_core_counts_as_one(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)), raising=False)
    root = tree(tmp_path, "0::/", {"sys/fs/cgroup/cpu.max": "250000 100000"})
    assert available_cores(root) == 3
    unlimited = {
        "sys/fs/cgroup/cpu.max": "max 100000",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": -1,
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": 100000,
    }
    assert available_cores(tree(tmp_path, "0::/\n3:cpu:/", unlimited)) == 16


@pytest.mark.parametrize(
    "content", ["", "what is this", "0::", "::::", "4:memory:/x\n0::/y", "0::/" + "a/" * 200]
)
def test_trees_that_say_nothing_limit_nothing(tmp_path, content):
    root = tree(tmp_path, content, {"sys/fs/cgroup/memory.max": "max"})
    available = psutil.virtual_memory().available
    assert available_memory(root) > available // 2
    assert available_cores(root) >= 1
