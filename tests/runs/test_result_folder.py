from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
from folders import content

from twintrack.report.method_results import read_results
from twintrack.runs.records import Failure
from twintrack.runs.result_folder import means, write_results

ROWS = {
    "B": {"tdsc": 0.1 + 0.2, "vi_SMA": None, "ece": math.nan, "volume": -3.5},
    "A": {"tdsc": 1 / 3, "vi_SMA": None, "ece": 1e-300, "volume": 2},
}
CURVE = {
    "bin_count": np.array([2**60, 0], np.uint64),
    "mean_score": np.array([0.1, np.nan]),
    "mean_mhr": np.array([0.2, np.nan]),
}


def write(folder, rows=ROWS, notes=None, failures=(), reliability=CURVE):
    write_results(folder, "MHR", {"protocol": "official"}, rows, notes or {}, failures, reliability)
    with (folder / "cases.csv").open(newline="") as file:
        cases = list(csv.DictReader(file))
    with (folder / "failures.csv").open(newline="") as file:
        failed = list(csv.DictReader(file))
    return cases, json.loads((folder / "summary.json").read_text()), failed


def test_numbers_are_read_back_to_the_same_bits(tmp_path):
    cases, _, _ = write(tmp_path)
    assert [row["case"] for row in cases] == ["A", "B"]
    assert float(cases[1]["tdsc"]) == 0.1 + 0.2
    assert float(cases[0]["ece"]) == 1e-300
    assert float(cases[1]["volume"]) == -3.5  # no apostrophe before a negative number


def test_undefined_and_absent_figures_differ(tmp_path):
    cases, summary, _ = write(tmp_path, {**ROWS, "C": {**ROWS["A"], "vi_SMA": 5.0}})
    assert [row["vi_SMA"] for row in cases] == ["", "", "5.0"]
    assert cases[1]["ece"] == "nan"
    assert summary["means"]["vi_SMA"] == {"mean": 5.0, "cases": 1}
    cases, summary, _ = write(tmp_path)
    assert "vi_SMA" not in cases[0]
    assert summary["means"]["ece"] == {"mean": 1e-300, "cases": 1}


def test_means_are_rounded_once_and_do_not_depend_on_order():
    values = [1e16, 1.0, -1e16, 1.0]
    rows = {str(k): {"x": value} for k, value in enumerate(values)}
    assert means(rows, ["x"])["x"] == (0.5, 4)
    assert math.isnan(means({"A": {"x": math.nan}}, ["x"])["x"][0])


def test_formulas_of_case_names_and_notes_are_disarmed(tmp_path):
    rows = {name: {"tdsc": 1.0} for name in ("=cmd|'/C calc'!A0", "+1", "@SUM(A1)", "-x", "plain")}
    notes = {"plain": ["=HYPERLINK()", 'with "quotes", commas'], "+1": ["two\r\nlines\x07"]}
    failures = [Failure("-F", "read", "=role", "\t=message")]
    cases, _, failed = write(tmp_path, rows, notes, failures)
    for row in (*cases, *failed):
        for cell in row.values():
            assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert cases[-1]["notes"] == '\'=HYPERLINK(); with "quotes", commas'
    assert [row["notes"] for row in cases if row["case"] == "'+1"] == ["two  lines"]


def test_report_reads_what_is_written(tmp_path):
    failures = [Failure("C", "read", "score", "truncated")]
    write(tmp_path, notes={"A": ["one", "two"]}, failures=failures)
    name, results = read_results(tmp_path)
    assert name == "MHR"
    assert results.cases == ("A", "B")
    assert results.values["tdsc"].tolist() == [1 / 3, 0.1 + 0.2]
    assert results.notes == {"A": "one; two"}
    assert results.failures == {"C": "read; score; truncated"}
    assert results.provenance["protocol"] == "official"
    assert results.reliability.bin_count.tolist() == [2**60, 0]


def test_rows_are_sorted_whatever_finished_first(tmp_path):
    failures = [Failure(case, "read", "score", "x") for case in "DCE"]
    cases, _, failed = write(tmp_path, failures=failures)
    assert [row["case"] for row in cases] == ["A", "B"]
    assert [row["case"] for row in failed] == ["C", "D", "E"]


def test_files_are_there_without_cases_too(tmp_path):
    """Else the files of an earlier run would be taken for those of this one."""
    write(tmp_path)
    cases, summary, failed = write(
        tmp_path, {}, failures=[Failure("A", "read", "", "x")], reliability=None
    )
    assert cases == []
    assert (summary["cases"], summary["failed"], summary["reliability"]) == (0, 1, None)
    assert [row["case"] for row in failed] == ["A"]


def test_failed_write_leaves_the_old_files(tmp_path, monkeypatch):
    write(tmp_path)
    before = content(tmp_path)

    def full(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(OSError, match="No space left"):
        write_results(tmp_path, "X", {}, {}, {}, [], None)
    assert content(tmp_path) == before
