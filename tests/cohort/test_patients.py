"""Which cases are of one patient: told by the manifest or by the names, and never guessed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from folders import touch

from twintrack.cohort import Case, read_folders, read_manifest, write_manifest
from twintrack.cohort.patients import patients_of


@pytest.mark.parametrize(
    ("pattern", "name", "patient"),
    [
        ("{patient}_*", "P1_a", "P1"),
        ("{patient}_nodule-*", "LIDC-IDRI-0001_nodule-12", "LIDC-IDRI-0001"),
        ("LUNG_{patient}_nodule*", "LUNG_07_nodule_2", "07"),
        ("{patient}_{k}", "P1_2_3", "P1_2"),
        ("{patient}{k}", "A12", "A"),  # {k} is all of the number
        ("{patient}_{k:02d}", "P1_02", "P1"),
        ("*-{patient}", "visit 1-P7", "P7"),
        ("{patient}", "P1", "P1"),
        ("{patient}.*", "P1.a", "P1"),  # no regular expression
        ("{patient}_*", "Mu\u0308ller_1", "M\u00fcller"),
    ],
)
def test_the_patient_is_a_part_of_the_name(pattern, name, patient):
    assert patients_of([name], pattern) == {name: patient}


@pytest.mark.parametrize(
    ("pattern", "name", "message"),
    [
        ("{patient}_*", "P1_2_a", r"case 'P1_2_a': group is .*; it finds 'P1' and 'P1_2'"),
        ("{patient}_{k}", "P1_b", r"1 of 2 cases do not fit it \(P1_b\)"),
        ("{patient}_{k:02d}", "P1_2", r"1 of 2 cases do not fit it \(P1_2\)"),
        ("{patient}_*", "_1", "do not fit"),  # nobody
        ("{patient}x", "P1", "do not fit"),
        ("P1.*{patient}", "P1234", "do not fit"),
        ("P1_*", "P1_2", r"it needs \{patient\} once"),
        ("{patient}_{patient}", "P1_P1", r"it needs \{patient\} once"),
        ("{patient}_{case}", "P1_a", r"\{case\} is not one of \{patient\}, \{k\} and \{k:02d\}"),
    ],
)  # fmt: skip
def test_names_that_do_not_fit_or_fit_twice_are_named(pattern, name, message):
    fits = {"{patient}_*": "Q_1", "{patient}x": "Qx", "P1.*{patient}": "P1.a-Q"}
    with pytest.raises(ValueError, match=message) as refused:
        patients_of([name, fits.get(pattern, "Q_01")], pattern)
    assert refused.value.argument == "group"


def test_at_most_three_of_many_names_are_shown():
    with pytest.raises(ValueError, match=r"5 of 6 cases do not fit it \(a, b, c, …\)"):
        patients_of([*"abcde", "P_1"], "{patient}_{k}")


def test_what_is_known_otherwise_is_not_overruled():
    assert patients_of(["P1_1", "P1_2"], "{patient}_*", {"P1_1": "P1", "P1_2": None}) == {
        "P1_1": "P1",
        "P1_2": "P1",
    }
    with pytest.raises(ValueError, match="finds 'P1', but the case is known to be of 'Q'"):
        patients_of(["P1_1"], "{patient}_*", {"P1_1": "Q"})


def cohort(folder: Path, text: str) -> Path:
    touch(folder, *(f"{name}.nii" for name in "abcdef"))
    path = folder / "cohort.csv"
    path.write_text(text, encoding="utf-8")
    return path


GIVEN = "case,score,patient,rater_1\nP_1,a.nii, P ,b.nii\nP_2,c.nii,P,d.nii\nQ_1,e.nii,,f.nii\n"


def test_a_manifest_tells_and_is_written_back(tmp_path):
    found = read_manifest(cohort(tmp_path, GIVEN))
    assert [case.patient for case in found] == ["P", "P", None]
    write_manifest(tmp_path / "again.csv", found)
    assert read_manifest(tmp_path / "again.csv") == found
    head = (tmp_path / "again.csv").read_text().splitlines()[0]
    assert head == "case,score,rater_1,vessels,roi,patient"
    # Where nobody has a patient the file is as before there were any.
    write_manifest(tmp_path / "none.csv", [dataclasses.replace(c, patient=None) for c in found])
    assert (tmp_path / "none.csv").read_text().splitlines()[0] == "case,score,rater_1,vessels,roi"


def test_one_file_under_two_patients_is_still_one_file(tmp_path):
    twice = "case,score,patient,rater_1\nP_1,a.nii,P,b.nii\nQ_1,a.nii,Q,b.nii\n"
    with pytest.raises(ValueError, match="case 'Q_1' has the same files as case 'P_1'"):
        read_manifest(cohort(tmp_path, twice))


def test_column_and_pattern_at_once_are_refused(tmp_path):
    path = cohort(tmp_path, GIVEN)
    with pytest.raises(ValueError, match=r"cohort\.csv: has a column patient.*leave out --group"):
        read_manifest(path, group="{patient}_*")
    path.write_text(
        GIVEN.replace(",patient", "").replace(", P ", "").replace(",P,", ",").replace(",,", ",")
    )
    assert [case.patient for case in read_manifest(path, group="{patient}_*")] == ["P", "P", "Q"]


def test_folders_take_the_pattern_for_the_cases_that_are_chosen(tmp_path):
    touch(tmp_path / "in", "P_1/annotation_1.nii.gz", "odd/annotation_1.nii.gz")
    touch(tmp_path / "out", "P_1.npz", "odd.npz")
    folders = (tmp_path / "in", tmp_path / "out")
    (case,) = read_folders(*folders, select=lambda _: ["P_1"], group="{patient}_{k}")
    assert case == Case("P_1", *[case.score, case.raters], patient="P")
    with pytest.raises(ValueError, match=r"1 of 2 cases do not fit it \(odd\)"):
        read_folders(*folders, group="{patient}_{k}")
