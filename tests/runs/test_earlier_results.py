"""Results of another method are not replaced unasked."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from folders import content

from twintrack import Calibrator
from twintrack.runs.earlier_results import check_results
from twintrack.runs.editions import EDITIONS
from twintrack.runs.evaluate import EvaluateJob
from twintrack.runs.result_folder import write_results
from twintrack.runs.store import Store


def fitted(bound):
    return Calibrator(bins=3).fit(np.linspace(0, 1, 99), [np.arange(99) > bound])


CALIBRATED = EvaluateJob(calibrator=fitted(60))
CHANGES = {
    "protocol": ({"protocol": "corrected"}, 'protocol is "official", here "corrected"'),
    "region": ({"region": "all"}, 'region is "box", here "all"'),
    "mm3": ({"millimetres": True}, 'volume_unit is "voxels", here "mm3"'),
    "staple": ({"staple": True}, "staple is false, here true"),
    "tumour": ({"tumour": (1, 4)}, "tumour is [1], here [1, 4]"),
    "headers": ({"ignore_header": True}, "ignore_header is false, here true"),
    "no calibrator": (
        {"calibrator": None},
        "(target mhr, region all, cases 1, voxels 99), here none",
    ),
    "calibrator": ({"calibrator": fitted(61)}, "voxels 99), here the map "),
}


@pytest.fixture
def folder(tmp_path):
    """The results of `CALIBRATED`, called "ours"."""
    write_results(tmp_path, "ours", CALIBRATED.options, {}, {}, [], None)
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "A.npz").touch()
    return tmp_path


def summary_with(folder, **changed):
    path = folder / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))


@pytest.mark.parametrize("change", CHANGES)
def test_another_option_is_another_method(folder, change):
    changed, told = CHANGES[change]
    options = dataclasses.replace(CALIBRATED, **changed).options
    before = content(folder)
    with pytest.raises(ValueError, match=r"summary\.json: is of another method: ") as refused:
        check_results(folder, "ours", options)
    assert told in str(refused.value)
    assert "name another folder for this run, or replace what is there with --force" in str(
        refused.value
    )
    outdated = check_results(folder, "ours", options, force=True)
    assert {path.name for path in outdated} >= {"summary.json", "cases.csv", "A.npz"}
    assert content(folder) == before  # it is for who has results to put in their place


def test_another_name_is_another_method(folder):
    with pytest.raises(ValueError, match='method: method is "ours", here "theirs"; name another'):
        check_results(folder, "theirs", CALIBRATED.options)


def test_the_same_method_may_be_measured_again(folder, monkeypatch):
    assert check_results(folder, "ours", CALIBRATED.options) == []
    monkeypatch.setitem(EDITIONS, "crps", 2)  # a formula has changed
    assert check_results(folder, "ours", CALIBRATED.options) == []
    # What earlier versions wrote: a version for the editions, and fewer options.
    summary_with(folder, twintrack="0.0.1")
    content = json.loads((folder / "summary.json").read_text())
    for name in ("editions", "ignore_header"):
        del content[name]
    del content["calibrator"]["cross_validation"]
    content["calibrator"]["versions"] = {"twintrack": "0.0.1"}
    (folder / "summary.json").write_text(json.dumps(content))
    assert check_results(folder, "ours", CALIBRATED.options) == []
    # An option that it does not state is what it was when there was no other.
    ignoring = dataclasses.replace(CALIBRATED, ignore_header=True)
    with pytest.raises(ValueError, match="ignore_header is false, here true"):
        check_results(folder, "ours", ignoring.options)


def test_a_folder_without_results_is_free(tmp_path):
    assert check_results(tmp_path / "new", "ours", CALIBRATED.options) == []
    (tmp_path / "notes.txt").touch()
    assert check_results(tmp_path, "ours", CALIBRATED.options) == []


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"method": "ours"}'])
def test_a_summary_of_something_else_is_not_replaced(folder, text):
    (folder / "summary.json").write_text(text)
    with pytest.raises(ValueError, match=r"summary\.json: is not the summary of an evaluation"):
        check_results(folder, "ours", CALIBRATED.options)


def test_results_without_a_summary_are_not_replaced(folder):
    (folder / "summary.json").unlink()
    with pytest.raises(ValueError, match=r"cases\.csv: holds results, but no summary\.json says"):
        check_results(folder, "ours", CALIBRATED.options)


def test_an_unfinished_run_of_another_method_is_told_by_its_store(tmp_path):
    def begin(job):
        with Store(tmp_path / "store", job.kind, job.options).writing(["A"]):
            pass

    begin(CALIBRATED)
    (tmp_path / "cases.csv").touch()  # killed while it wrote its results
    assert check_results(tmp_path, "any name", CALIBRATED.options) == []
    plain = EvaluateJob()
    with pytest.raises(ValueError, match=r"store/evaluation-\w+: is of another method: calibrator"):
        check_results(tmp_path, "ours", plain.options)
    begin(plain)  # forced
    assert check_results(tmp_path, "ours", plain.options) == []
