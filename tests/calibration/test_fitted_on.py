"""Which cases a map was fitted on: by digests alone, and the same in any order."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import twintrack as tt
from twintrack.calibration.case_tallies import CaseTallies
from twintrack.calibration.fitted_on import (
    NOTES,
    FittedCase,
    find_overlap,
    told,
)
from twintrack.calibration.records import OverlapRecord
from twintrack.files import as_record

A, B, C, D = (f"{letter * 16}-100" for letter in "abcd")
FITTED = [FittedCase.named("one", A), FittedCase.named("two", B), FittedCase.named("three")]


@pytest.mark.parametrize(
    ("name", "score", "kind"),
    [
        ("one", A, "same_case"),
        ("uno", A, "same_score"),
        ("one", B, "same_score"),  # that of "two", which counts more than the name
        ("one", C, "other_score"),
        ("one", None, "same_name"),
        ("three", C, "same_name"),
        ("three", None, "same_name"),
        ("four", C, None),
        ("four", None, None),
        ("ONE", None, None),
    ],
)
def test_cases_are_told_apart_by_name_and_score(name, score, kind):
    assert find_overlap(FITTED, {name: score}) == ({} if kind is None else {kind: (name,)})
    assert kind is None or "the map was fitted on" in NOTES[kind]


VISITS = [
    FittedCase.named("P_1", A, "P"),
    FittedCase.named("Q", B),  # a patient of its own
    FittedCase.named("R_1", None, "R"),
]


@pytest.mark.parametrize(
    ("name", "score", "patient", "kind"),
    [
        ("P_2", C, "P", "same_patient"),
        ("P_2", None, "P", "same_patient"),
        ("P", C, None, "same_patient"),  # a case without a patient is called as its patient is
        ("Q_2", C, "Q", "same_patient"),
        ("P_1", C, "P", "same_patient"),  # the name and another score, and known whose
        ("P_1", C, "Z", "other_score"),
        ("P_1", C, None, "other_score"),
        ("Q", C, None, "other_score"),
        ("P_1", A, "P", "same_case"),
        ("x", A, "P", "same_score"),
        ("R_1", C, "R", "same_name"),
        ("P_2", C, None, None),
        ("P_2", C, "p", None),
    ],
)
def test_other_cases_of_a_patient_are_known(name, score, patient, kind):
    found = find_overlap(VISITS, {name: score}, {name: patient})
    assert found == ({} if kind is None else {kind: (name,)})


def test_the_warning_names_other_cases_of_patients():
    overlap = find_overlap(VISITS, {"P_2": C, "Q": C}, {"P_2": "P"})
    assert told(overlap, 5) == (
        "the map was fitted on cases of the patients of 1 of these 5 cases (P_2); on cases with "
        "the names of 1 of these 5 cases and other scores, perhaps of the same patients (Q). "
        "Figures on them are too good; evaluate on other cases"
    )


def test_patients_are_in_the_file_by_digest_where_there_are_any(tmp_path):
    path = tmp_path / "c.json"
    fitted = tt.Calibrator(bins=5).partial_fit(*voxels(0), case="1", group="Erika Mustermann")
    fitted.partial_fit(*voxels(1), case="2").save(path)
    assert "Mustermann" not in path.read_text()
    assert tt.load_calibrator(path).fitted_on_ == fitted.fitted_on_
    in_file = {one["case"]: one for one in json.loads(path.read_text())["fitted_on"]}
    first, second = (FittedCase.named(name).case for name in "12")
    assert in_file[first]["patient"] == FittedCase.named("Erika Mustermann").case
    assert in_file[second] == {"case": second, "score": None}  # as before there were patients
    content = json.loads(path.read_text())
    content["fitted_on"][0]["patient"] = 7
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="fitted_on must be null or a list of objects"):
        tt.load_calibrator(path)


def test_a_name_is_the_same_however_its_letters_are_composed():
    composed, decomposed = "M\u00fcller", "Mu\u0308ller"
    assert FittedCase.named(composed) == FittedCase.named(decomposed)
    assert FittedCase.named("A").case == "559aead08264d579"  # of SHA-256: files keep it for ever
    FittedCase.named("\ud800")


def test_the_warning_says_how_many_and_which_first():
    scores = {"one": A, "uno": A, "due": B, **{f"x{k}": A for k in range(4)}}
    overlap = find_overlap(FITTED, scores)
    assert told(overlap, 9) == (
        "the map was fitted on 1 of these 9 cases (one); on the scores of 6 of these 9 cases, "
        "under other names (due, uno, x0, …). Figures on them are too good; evaluate on other cases"
    )
    assert told(find_overlap(FITTED, {"two": C}), 2) == (
        "the map was fitted on cases with the names of 1 of these 2 cases and other scores, "
        "perhaps of the same patients (two). If they are, figures on them are too good; evaluate "
        "on other cases"
    )


def test_what_is_read_is_checked():
    for content in (None, {}, {"same_case": ["one"], "other_score": ["two"]}):
        read = as_record(content, OverlapRecord, place="fitted_on")
        assert read == (content and {kind: tuple(names) for kind, names in content.items()})
    for wrong in ([], {"kind": []}, {"same_case": "one"}, {"same_case": [1]}):
        with pytest.raises(ValueError, match="fitted_on must be null or an object of lists"):
            as_record(wrong, OverlapRecord, place="fitted_on")


def voxels(seed):
    rng = np.random.default_rng(seed)
    score = rng.random(500, np.float32)
    return score, [score > 0.4, score > 0.6]


@given(st.permutations(["P1", "P2", "Prénom", "4"]))
def test_the_file_does_not_depend_on_the_order_of_the_cases(tmp_path_factory, order):
    folder = tmp_path_factory.mktemp("files")
    files = []
    for number, names in enumerate((sorted(order), order)):
        calibrator = tt.Calibrator(bins=5)
        for name in names:
            calibrator.partial_fit(*voxels(len(name)), case=name)
        calibrator.save(folder / f"{number}.json")
        files.append((folder / f"{number}.json").read_bytes())
    assert files[0] == files[1]


def test_the_file_has_digests_and_no_names(tmp_path):
    """Names of patients do not belong into a file that is passed on."""
    path = tmp_path / "c.json"
    fitted = tt.Calibrator(bins=5).partial_fit(*voxels(0), case="Erika Mustermann")
    fitted.save(path)
    assert "Mustermann" not in path.read_text()
    assert json.loads(path.read_text())["fitted_on"] == [
        {"case": FittedCase.named("Erika Mustermann").case, "score": None}
    ]
    loaded = tt.load_calibrator(path)
    assert loaded.fitted_on_ == fitted.fitted_on_
    assert "fitted_on" not in loaded.provenance_


def test_cases_without_a_name_are_not_known(tmp_path):
    """The numbers of arrays in a list are no names: a case called "0" is none of them."""
    scores, raters = zip(*(voxels(k) for k in range(3)), strict=True)
    assert tt.Calibrator(bins=5).fit(list(scores), list(raters)).fitted_on_ is None
    assert tt.Calibrator(bins=5).partial_fit(*voxels(0)).fitted_on_ is None
    named = tt.Calibrator("none").partial_fit(*voxels(0), case="A")
    assert named.fitted_on_ is None  # the identity is fitted to nothing


def test_the_cases_come_and_go_with_the_map():
    names = {name: FittedCase.named(name) for name in "ABC"}
    calibrator = tt.Calibrator(bins=5).partial_fit(*voxels(0), case="A")
    assert calibrator.fitted_on_ == (names["A"],)
    calibrator.add_tally(tt.ScoreTally(2).update(*voxels(1)), "B")
    assert set(calibrator.fitted_on_) == {names["A"], names["B"]}
    other = tt.Calibrator(bins=5).partial_fit(*voxels(2), case="C")
    other.record_cases([FittedCase.named("C", C)])
    known = calibrator.merge(other).fitted_on_
    assert set(known) == {names["A"], names["B"], FittedCase.named("C", C)}
    assert list(known) == sorted(known)
    # The sum of several cases is none of them, whatever it is called.
    calibrator.add_tally(tt.ScoreTally(2).update(*voxels(3)), "fold 0", cases=2)
    assert calibrator.fitted_on_ == known
    assert calibrator.fit(*voxels(0)).fitted_on_ is None


def test_a_file_of_10000_cases_is_read_and_one_too_large_is_not_written(tmp_path, monkeypatch):
    path = tmp_path / "c.json"
    calibrator = tt.Calibrator(bins=5).partial_fit(*voxels(0))
    cases = [FittedCase.named(f"case {k}", f"{k:016x}-{123_456_789 + k}") for k in range(10_000)]
    calibrator.record_cases(cases).save(path)
    assert path.stat().st_size < 1_000_000
    assert tt.load_calibrator(path).fitted_on_ == tuple(sorted(cases))
    monkeypatch.setattr("twintrack.calibration.calibrator_file.LARGEST_FILE", 10_000)
    with pytest.raises(
        ValueError, match=r"d\.json: would take .* there are 5 knots and 10,000 cases"
    ):
        calibrator.save(tmp_path / "d.json")
    assert not (tmp_path / "d.json").exists()


@given(st.permutations([0, 1, 2, 3]))
def test_cases_that_are_called_alike_are_told_apart_by_their_scores(order):
    """Two hospitals have a case "A"; what is said of the name alone is said of both."""
    said = [
        FittedCase.named("A", A),
        FittedCase.named("A", B, "P"),
        FittedCase.named("A", None, "Q"),
        FittedCase.named("B"),
    ]
    cases = CaseTallies()
    cases.record_cases(said[k] for k in order)
    found = cases.fitted_on
    assert {(one.case, one.score) for one in found} == {
        (said[0].case, A), (said[0].case, B), (said[3].case, None)
    }  # fmt: skip
    later = cases.copy()
    later.record_cases([FittedCase.named("B", C), FittedCase.named("A", D)])
    assert cases.fitted_on == found
    assert len(later.fitted_on) == 4


def test_the_patient_of_a_name_is_kept_when_its_score_becomes_known():
    said = [FittedCase.named("A", None, "P"), FittedCase.named("A", A)]
    for order in (said, said[::-1]):
        cases = CaseTallies()
        cases.record_cases(order)
        assert cases.fitted_on == (FittedCase.named("A", A, "P"),)
