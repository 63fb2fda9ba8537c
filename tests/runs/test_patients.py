"""Patients of several cases in runs: kept with the cases, held out and left out as a whole."""

from __future__ import annotations

import csv
import dataclasses
import json

import pytest
from folders import content

from twintrack import Calibrator, ScoreTally
from twintrack.calibration.bin_choice import choose_bins
from twintrack.calibration.fitted_on import FittedCase
from twintrack.runs.engine import Settings
from twintrack.runs.evaluate import EvaluateJob, evaluate_cohort, fitted_among, stored_evaluation
from twintrack.runs.fit import (
    TallyJob,
    fit_cohort,
    fit_tallies,
    leave_one_out,
    read_tallies,
)
from twintrack.runs.merge import merge_stores
from twintrack.runs.store import open_stores

PATIENTS = ["P", "Q", "P", None, "Q", "R"]


def named(cases, patients=PATIENTS):
    return [dataclasses.replace(c, patient=p) for c, p in zip(cases, patients, strict=True)]


@pytest.fixture
def visits(cases):
    return named(cases)


@pytest.fixture
def store(visits, tmp_path):
    fit_cohort(visits, Calibrator(bins=20), TallyJob("roi"), tmp_path / "tallies")
    return tmp_path / "tallies"


def of_patients(tallies):
    by_case = dict(tallies)
    return {
        patient: ScoreTally.of_all([by_case[case] for case in cases])
        for patient, cases in tallies.groups().items()
    }


def test_the_store_knows_the_patients(store, visits):
    names = [case.name for case in visits]
    tallies = read_tallies(store)[1]
    assert tallies.groups() == {
        "P": [names[0], names[2]],
        "Q": [names[1], names[4]],
        names[3]: [names[3]],
        "R": [names[5]],
    }
    assert read_tallies(store, without=[names[0]])[1].groups()["P"] == [names[2]]
    known = dict(zip(names, PATIENTS, strict=True))
    for case, fitted in tallies.fitted_cases().items():
        assert (fitted.case, fitted.patient) == FittedCase.named(case, None, known[case])[::2]


@pytest.mark.parametrize("folds", [2, 3, 9])
def test_folds_divide_no_patient(store, folds, tmp_path, visits):
    """Whatever way a calibrator comes to its tallies, it chooses the same bins."""
    tallies = read_tallies(store)[1]
    made = {"bins": "auto", "folds": folds, "seed": 1}
    streamed = fit_tallies(Calibrator(**made), tallies, "roi")
    groups = list(of_patients(tallies).values())
    expected = choose_bins(groups, "mhr", 0, folds, 1)
    assert streamed.bin_choice_.scores == expected.scores
    assert streamed.bin_choice_.folds == min(folds, 4)
    kept = fit_tallies(Calibrator(**made), tallies, "roi", keep=True)
    assert kept.bin_choice_ == expected
    fitted = Calibrator(**made)
    fit_cohort(visits, fitted, TallyJob("roi"), tmp_path / "again")
    assert fitted.bin_choice_ == streamed.bin_choice_
    assert fitted.fitted_on_ == streamed.fitted_on_ == kept.fitted_on_
    if folds == 9:  # a fold for each patient, who can then be drawn
        assert sorted(g.total.voxels for g in streamed._cases.each_group()) == sorted(
            t.voxels for t in groups
        )


def test_a_patient_is_left_out_with_all_cases(store):
    tallies = read_tallies(store)[1]
    whole = fit_tallies(Calibrator(bins=30), tallies, "roi")
    left_out = dict(leave_one_out(whole, tallies, "roi"))
    assert sorted(left_out) == tallies.cases
    for cases in tallies.groups().values():
        expected = fit_tallies(Calibrator(bins=30), read_tallies(store, without=cases)[1], "roi")
        for case in cases:
            assert left_out[case].map_ == expected.map_
            assert left_out[case].fitted_on_ == expected.fitted_on_
            ours, theirs = left_out[case].provenance_, expected.provenance_
            assert ours == {**theirs, "facts": None, "thresholds": None}
    one = tallies.of(tallies.groups()["P"])
    with pytest.raises(ValueError, match="leaving one patient out needs at least two, here 1"):
        next(leave_one_out(whole, one, "roi"))


def test_a_patient_for_every_case_gives_the_files_without(cases, tmp_path):
    """But for the digests of the patients, which the files then have."""
    files = {}
    for name, patients in {"none": [None] * 6, "own": [f"{9 - k}" for k in range(6)]}.items():
        calibrator = Calibrator(bins="auto", folds=3)
        fit_cohort(named(cases, patients), calibrator, TallyJob("roi"), tmp_path / name)
        calibrator.save(tmp_path / "c.json")
        files[name] = json.loads((tmp_path / "c.json").read_text())
        assert ["patient" in one for one in files[name].pop("fitted_on")] == [name == "own"] * 6
        left_out = leave_one_out(calibrator, read_tallies(tmp_path / name)[1], "roi")
        files[name]["left out"] = {case: fitted.map_ for case, fitted in left_out}
    assert files["own"] == files["none"]


def test_who_it_was_changes_without_reading_a_voxel(store, visits, cases):
    """The cohort says so and no file: a record is corrected, nothing is tallied again."""

    class Counting(TallyJob):
        def read(self, case):
            raise AssertionError(f"{case.name} is read again")

    (opened,) = open_stores(store)
    for patients in (["S"] * 6, [None] * 6, PATIENTS):
        fit_cohort(named(cases, patients), Calibrator(bins=20), Counting("roi"), store)
        assert [opened.find(case.name).patient for case in cases] == patients
        assert list(read_tallies(store)[1].patients().values()) == patients
    # Records of earlier versions say nothing: each case is a patient of its own.
    fit_cohort(cases, Calibrator(bins=20), Counting("roi"), store)
    assert (
        "patient"
        not in json.loads((opened.folder / f"cases/{cases[0].name}.json").read_text())["result"]
    )
    tallies = read_tallies(store, group="{patient}_0000{k}")[1]
    assert list(tallies.groups()) == ["PHANTOM"]
    with pytest.raises(ValueError, match="bins='auto' holds out patients, but all 6 cases"):
        fit_tallies(Calibrator(bins="auto"), tallies, "roi")


def test_a_pattern_does_not_overrule_the_store(store):
    with pytest.raises(ValueError, match="case 'PHANTOM_00000': .* is known to be of 'P'"):
        read_tallies(store, group="{patient}_*")


def results(folder):
    with (folder / "cases.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_an_evaluation_says_whose_the_cases_are(visits, cases, tmp_path):
    """In one piece, merged from parts, and over records of before: the same files."""
    (tmp_path / "whole").mkdir()
    whole = evaluate_cohort(visits, EvaluateJob(), tmp_path / "store")
    whole.write(tmp_path / "whole", "none")
    rows = results(tmp_path / "whole")
    assert list(rows[0])[:2] == ["case", "patient"]
    assert [row["patient"] for row in rows] == [patient or "" for patient in PATIENTS]
    for part in (0, 1):
        store = tmp_path / f"part_{part}"
        evaluate_cohort(visits[part::2], EvaluateJob(), store, cohort=visits)
    merged = merge_stores(
        [tmp_path / "part_0", tmp_path / "part_1"], tmp_path / "merged", "evaluation"
    )
    (tmp_path / "joined").mkdir()
    stored_evaluation(merged).write(tmp_path / "joined", "none")
    assert content(tmp_path / "joined") == content(tmp_path / "whole")
    # Nobody named: no column, as ever.
    evaluate_cohort(cases, EvaluateJob(), tmp_path / "store").write(tmp_path / "whole", "none")
    assert "patient" not in results(tmp_path / "whole")[0]


def test_another_case_of_a_patient_is_told(visits, tmp_path):
    calibrator = Calibrator(bins=20)
    fit_cohort(visits[:2], calibrator, TallyJob("roi"), tmp_path / "fit")  # of P and Q
    job = EvaluateJob(calibrator=calibrator)
    overlap = {
        "same_case": (visits[1].name,),
        "same_patient": (visits[2].name, visits[4].name),
    }
    assert fitted_among(visits[1:], job, tmp_path / "store") == overlap
    found = evaluate_cohort(visits[1:], job, tmp_path / "store", settings=Settings(workers=2))
    assert found.fitted_on == overlap
    assert found.notes[visits[2].name][0].startswith("the map was fitted on a case of this patient")
