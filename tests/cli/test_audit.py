"""``twintrack audit``: what it reads, says, writes and refuses."""

from __future__ import annotations

import dataclasses
import json

import pytest

from twintrack import Calibrator
from twintrack.cohort import read_manifest, write_manifest


@pytest.fixture(scope="module")
def hospital(pristine_cohort, tmp_path_factory):
    """Maps of three cases, and three others with their tallies."""
    from twintrack.cli import main

    folder = tmp_path_factory.mktemp("audit")
    cases = read_manifest(pristine_cohort / "manifest.csv")
    for name, some in (("old", cases[:3]), ("new", cases[3:])):
        write_manifest(folder / f"{name}.csv", some)
        options = ["--bins", "cells", "-o", str(folder / f"{name}.json")]
        with pytest.raises(SystemExit, match="0"):
            main(["fit", "-q", "-i", str(folder / f"{name}.csv"), *options])
    return folder


@pytest.fixture
def audit(twintrack, hospital, tmp_path):
    """Audit the map, or another one, with some options: status, output, errors, the folder."""

    def audit(*arguments, model=hospital / "old.json"):
        output = tmp_path / "audited"
        return (*twintrack("audit", "-m", model, "-o", output, *arguments), output)

    return audit


def numbers(folder):
    return json.loads((folder / "audit.json").read_text())


def wrong(hospital, path, times=0.4):
    """A map that predicts too little by far, with the provenance of the old one."""
    content = json.loads((hospital / "old.json").read_text())
    content["knots"]["y"] = [times * y for y in content["knots"]["y"]]
    path.write_text(json.dumps(content))
    return path


def test_files_and_tallies_give_the_same_audit(audit, hospital):
    status, out, err, folder = audit("-i", hospital / "new.csv")
    assert status == 0, err
    by_files = numbers(folder)
    assert out.splitlines()[0] == by_files["sentence"]
    assert by_files["verdict"] in ("keep", "too few cases")
    assert by_files["map_error_from"] == "tallies"  # those beside the calibrator
    assert "from its tallies" in out
    assert sorted(path.name for path in folder.iterdir()) == [
        "audit.csv", "audit.json", "audit.svg", "tallies",
    ]  # fmt: skip
    header, *rows = (folder / "audit.csv").read_text().splitlines()
    assert header == "score,map,affine,refitted"
    assert len(rows) == 1001
    made = Calibrator.load(hospital / "old.json")
    score, value, *_ = map(float, rows[700].split(","))
    assert value == pytest.approx(made.transform([score])[0], abs=1e-7)
    status, again, _, folder = audit("--tallies", hospital / "new.tallies")
    assert status == 0
    assert numbers(folder) == by_files
    assert again == out


def test_a_wrong_map_is_replaced(audit, hospital, tmp_path, twintrack):
    model, written = wrong(hospital, tmp_path / "wrong.json"), tmp_path / "updated.json"
    options = ("--tallies", hospital / "new.tallies", "--write", written)
    status, out, err, folder = audit(*options, model=model)
    assert status == 0, err
    assert out.startswith("Refit: it predicts")
    assert "less volume than raters mark" in out
    assert "not known" in out
    assert "if the map itself had no error" in out.replace("\n", " ")
    found = numbers(folder)
    assert found["recommended"] in ("affine", "refit")
    assert str(written) in out
    updated = Calibrator.load(written)
    status, _, _, _ = audit("--tallies", hospital / "new.tallies", model=written)
    assert status == 2  # the cases that it was updated by are not new
    status, out, _ = twintrack("info", "-m", written)
    assert ("log-odds ×" in out) == (found["recommended"] == "affine")
    assert updated.region_ == "roi"


def test_a_map_that_stays_is_not_written(audit, hospital, tmp_path):
    written = tmp_path / "updated.json"
    status, _, _, _ = audit("--tallies", hospital / "new.tallies", "--write", written)
    assert status == 0
    assert not written.exists()


def test_json_lines(audit, hospital):
    status, out, err, folder = audit("--tallies", hospital / "new.tallies", "--log-json")
    assert (status, out) == (0, "")
    (said,) = [json.loads(line) for line in err.splitlines() if '"result"' in line]
    assert said["verdict"] == numbers(folder)["verdict"]
    assert said["output"] == str(folder)


def test_a_plan_does_nothing(audit, hospital):
    status, out, _, folder = audit("-i", hospital / "new.csv", "--dry-run")
    assert status == 0
    assert "3 of 3 cases" in out
    assert not folder.exists()


def test_a_broken_case_is_left_out_if_it_is_wanted(audit, hospital, tmp_path):
    cases = read_manifest(hospital / "new.csv")
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(b"no volume")
    write_manifest(tmp_path / "new.csv", [dataclasses.replace(cases[0], score=broken), *cases[1:]])
    status, _, err, _ = audit("-i", tmp_path / "new.csv")
    assert status == 2
    assert "1 of 3 cases could not be used" in err
    status, _, _, folder = audit("-i", tmp_path / "new.csv", "--skip-broken")
    assert status == 1
    assert numbers(folder)["cases"] == 2


def test_cases_of_the_fit_are_refused_before_the_work(audit, hospital):
    for given in (("-i", hospital / "old.csv"), ("--tallies", hospital / "old.tallies")):
        status, _, err, folder = audit(*given)
        assert status == 2
        assert "the map was fitted on 3 of these 3 cases" in err.replace("\n", " ")
        assert not folder.exists()


def test_another_region_is_refused(audit, twintrack, hospital, tmp_path):
    given = ("-i", hospital / "new.csv", "--region", "all", "-o", tmp_path / "all.json")
    assert twintrack("fit", "-q", *given)[0] == 0
    status, _, err, _ = audit("--tallies", tmp_path / "all.tallies")
    assert status == 2
    assert "holds no sets of tallies for --region roi; there are tallies of all" in err
    # The other way round the files are tallied as the map asks.
    status, _, err, _ = audit("-i", hospital / "new.csv")
    assert status == 0, err


def test_a_named_store_of_the_fit(audit, hospital, tmp_path):
    copy = tmp_path / "elsewhere.json"
    copy.write_bytes((hospital / "old.json").read_bytes())
    new = ("--tallies", hospital / "new.tallies")
    status, _, _, folder = audit(*new, model=copy)
    assert status == 0
    assert numbers(folder)["map_error_from"] == "unknown"
    status, _, _, folder = audit(*new, "--calibration", hospital / "old.tallies", model=copy)
    assert status == 0
    assert numbers(folder)["map_error_from"] == "tallies"
    status, _, err, _ = audit(*new, "--calibration", hospital / "new.tallies", model=copy)
    assert status == 2
    assert "0 of the 3 cases that the map was fitted to" in err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((), "either -i (the new cases) or --tallies"),
        (("-i", "NEW.csv", "--tallies", "NEW.tallies"), "either -i (the new cases) or --tallies"),
        (("-i", "NEW.csv", "-num_parts", "2"), "leave out -num_parts"),
        (("-i", "NEW.csv", "--bound", "2"), "bound is 2"),
        (("-i", "NEW.csv", "--region", "all"), "the map was fitted to the region roi"),
        (("--tallies", "NEW.tallies", "--write", "nowhere/x.json"), "its folder does not exist"),
        (("--tallies", "NEW.tallies", "-p", "folder"), "-p is about files of voxels"),
    ],
)
def test_what_makes_no_sense_is_refused(audit, hospital, given, said):
    given = [text.replace("NEW", str(hospital / "new")) for text in given]
    status, _, err, folder = audit(*given)
    assert status == 2
    assert said in err.replace("\n", " ")
    assert not folder.exists()


def test_without_matplotlib_there_is_no_figure(audit, hospital, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("twintrack.cli._available", lambda: ["audit"])
    status, _, err, folder = audit("--tallies", hospital / "new.tallies")
    assert status == 0, err
    assert not (folder / "audit.svg").exists()
    assert (folder / "audit.json").exists()
