"""Files made to do harm are refused by name, cheaply, and nothing in them is executed."""

from __future__ import annotations

import random
import sys
import tracemalloc
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fuzz"))
pytest.importorskip("jinja2")  # the reader of results is part of the reports
from bad_inputs import BAD_INPUTS, TRACE
from mutate import mutate
from targets import TARGETS, Finding, Target

# The libraries below warn of some of these files before they, or we, refuse them.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("bad", BAD_INPUTS, ids=lambda bad: f"{bad.target}: {bad.what}")
def test_bad_input_is_refused_by_name_without_memory_or_execution(bad, tmp_path):
    if bad.target not in TARGETS:
        pytest.skip("SimpleITK is not installed")
    target = TARGETS[bad.target]
    data = bad.make(target.seeds(tmp_path)[0])
    tracemalloc.start()
    try:
        message = target.check(tmp_path, data)  # raises Finding unless the message names the file
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert message
    assert peak < 24e6
    assert not Path(TRACE).exists()


@pytest.mark.parametrize("name", TARGETS)
def test_good_files_are_read(name, tmp_path):
    target = TARGETS[name]
    for data in target.seeds(tmp_path):
        assert target.check(tmp_path, data) == ""


def test_harness_tells_findings_from_refusals(tmp_path):
    def raising(error):
        def read(path):
            raise error

        return Target("t", "t.bin", read, lambda _: [b""], "plain")

    assert raising(ValueError("t.bin: no")).check(tmp_path, b"") == "t.bin: no"
    for error in (ValueError("no"), KeyError("t.bin"), MemoryError("t.bin"), SystemExit("t.bin")):
        with pytest.raises(Finding):
            raising(error).check(tmp_path, b"")


@pytest.mark.parametrize("name", ["npz", "nifti-gz", "calibrator"])
def test_mutations_follow_the_seed(name, tmp_path):
    target = TARGETS[name]
    data = target.seeds(tmp_path)[0]
    made = [
        [mutate(data, target.form, rng) for _ in range(50)]
        for rng in (random.Random("1"), random.Random("1"), random.Random("2"))
    ]
    assert made[0] == made[1] != made[2]
    assert len(set(made[0])) > 40
