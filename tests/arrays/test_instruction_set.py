"""Every instruction set that this processor has gives the same bits, and the one asked for runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "instruction_set_digests.py"


def run(instruction_set: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, PROGRAM],
        env={**os.environ, "TWINTRACK_INSTRUCTION_SET": instruction_set},
        capture_output=True,
        text=True,
        check=False,
    )


def digests(instruction_set: str) -> dict[str, str]:
    finished = run(instruction_set)
    if "this processor has" in finished.stderr:
        pytest.skip(f"this processor has no {instruction_set}")
    assert finished.returncode == 0, finished.stderr
    found = json.loads(finished.stdout)
    assert found.pop("instruction set") == instruction_set, "another set than the one asked for ran"
    return found


@pytest.fixture(scope="module")
def baseline() -> dict[str, str]:
    """What the set that every processor has computes."""
    found = digests("baseline")
    assert len(found) == 60
    return found


@pytest.mark.parametrize("instruction_set", ["avx2", "avx512"])
def test_same_bits_as_the_baseline(baseline, instruction_set):
    assert digests(instruction_set) == baseline


def test_an_unknown_set_is_refused_with_those_there_are():
    finished = run("sse9")
    assert finished.returncode != 0
    assert "TWINTRACK_INSTRUCTION_SET is 'sse9'; this processor has baseline" in finished.stderr
