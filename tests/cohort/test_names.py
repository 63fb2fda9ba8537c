"""One name in two spellings of Unicode is one name, and what only looks alike is told apart."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from folders import touch
from hypothesis import given
from hypothesis import strategies as st

from twintrack.cohort import Case, find_scores, read_folders, read_manifest
from twintrack.cohort.case import choose_cases
from twintrack.cohort.names import as_on_disk, composed, look_alike, skeleton
from twintrack.cohort.score_records import region_of_case
from twintrack.errors import InputError

NFC = unicodedata.normalize("NFC", "Fälle_Müller-1")
NFD = unicodedata.normalize("NFD", NFC)
HANGUL = unicodedata.normalize("NFD", "환자")  # the other common kind of composed letters


@pytest.mark.parametrize(("here", "there"), [(NFC, NFD), (NFD, NFC), (HANGUL, composed(HANGUL))])
@pytest.mark.parametrize(
    ("pattern", "files"),
    [
        ("{case}/annotation_{k}.nii.gz", "{}/annotation_{}.nii.gz"),
        ("rater{k}/{case}.nii.gz", "rater{1}/{0}.nii.gz"),
        ("{case}_é_*.nii.gz", "{}_e\u0301_{}.nii.gz"),
    ],
)
def test_either_spelling_is_found_in_folders(tmp_path, here, there, pattern, files):
    touch(tmp_path / "in", *(files.format(there, k) for k in (1, 2)))
    touch(tmp_path / "out", f"{here}.npz")
    touch(tmp_path / "in", f"{there}/vessels.nii.gz")
    for select in (iter, lambda names: choose_cases(names, [there], [])):
        (case,) = read_folders(tmp_path / "in", tmp_path / "out", pattern, select=select)
        assert case.name == composed(here)
        assert case.score == tmp_path / "out" / f"{here}.npz"
        assert case.raters == tuple(tmp_path / "in" / files.format(there, k) for k in (1, 2))
        assert all(file.is_file() for file in (case.score, case.vessels, *case.raters))


def test_either_spelling_is_found_in_a_manifest(tmp_path):
    """Folders on the way, and the file; a rater named in both spellings is one file."""
    touch(tmp_path, f"{NFD}/{NFD}.npz", f"{NFD}/1.nii", "x/2.nii")
    path = tmp_path / "cohort.csv"
    path.write_text(f"case,score,rater_1,rater_2\n{NFD},{NFC}/{NFC}.npz,{NFC}/1.nii,x/2.nii\n")
    (case,) = read_manifest(path, select=lambda names: choose_cases(names, [NFD], []))
    assert case.name == NFC
    assert case.score == tmp_path / NFD / f"{NFD}.npz"
    assert case.raters == (tmp_path / NFD / "1.nii", tmp_path / "x/2.nii")
    path.write_text(f"case,score,rater_1,rater_2\nA,{NFC}/{NFC}.npz,{NFC}/1.nii,{NFD}/1.nii\n")
    with pytest.raises(InputError, match="same file for two raters"):
        read_manifest(path)
    path.write_text(f"case,score,rater_1\n{NFD},{NFC}/{NFC}.npz,x/2.nii\n{NFC},x/2.nii,x/2.nii\n")
    with pytest.raises(InputError, match=r"row 3: case .* appears twice"):
        read_manifest(path)


def test_the_region_beside_a_score_is_found_in_either_spelling(tmp_path):
    """Without it, the map of 0 would count as predicted volume all over the CT."""
    touch(tmp_path, "prediction.json", f"{NFC}.nii.gz", f"rois/{NFD}.nii.gz")
    case = Case(NFC, tmp_path / f"{NFC}.nii.gz", ())
    assert region_of_case(case) == tmp_path / "rois" / f"{NFD}.nii.gz"


def test_two_spellings_in_one_folder_are_refused(tmp_path):
    """Which of them is meant nobody can see."""
    shown = r"Mu\\u0308.*M\\u00fc"
    touch(tmp_path / "out", "Mü.npz", "Mu\u0308.nii.gz")
    with pytest.raises(InputError, match=shown) as caught:
        find_scores(tmp_path / "out")
    assert caught.value.file == tmp_path / "out"
    touch(tmp_path / "a", "Mü.npz")
    touch(tmp_path / "b", "Mu\u0308.npz")
    with pytest.raises(InputError, match="of the same case"):
        find_scores(tmp_path / "a", tmp_path / "b")
    touch(tmp_path / "in", "Mü/annotation_1.nii.gz", "Mu\u0308/annotation_2.nii.gz")
    with pytest.raises(InputError, match=shown):
        read_folders(tmp_path / "in", tmp_path / "a")
    with pytest.raises(InputError, match=r"Mu\\u0308.*Mu\\u0308\\u00fc"):
        as_on_disk(two_partly_composed(tmp_path / "c"))


def two_partly_composed(folder: Path) -> Path:
    """A path whose name is there in two other spellings: with one, and with no mark apart."""
    touch(folder, "Mu\u0308u\u0308", "Mu\u0308ü")
    return folder / "Müü"


@pytest.mark.parametrize(
    "other",
    ["case 1 ", "case\u00a01", "case  1", "c\u0430se 1", "case\u200b 1", "Case 1", "c\u00adase 1"],
)
def test_names_that_only_look_alike_are_not_found_but_shown(tmp_path, other):
    touch(tmp_path / "in", f"{other}/annotation_1.nii.gz")
    touch(tmp_path / "out", "case 1.npz")
    spelled = other.encode("unicode_escape").decode().replace("\\x", "\\u00")
    with pytest.raises(FileNotFoundError) as caught:
        read_folders(tmp_path / "in", tmp_path / "out")
    assert f"there is '{spelled}/annotation_1.nii.gz'" in str(caught.value)
    path = tmp_path / "cohort.csv"
    path.write_text("case,score,rater_1\nA,out/case 1.npz,in/case 1/annotation_1.nii.gz\n")
    with pytest.raises(FileNotFoundError) as caught:
        read_manifest(path)
    assert f"there is '{spelled}', which looks like 'case 1' but is not it" in str(caught.value)
    with pytest.raises(InputError) as refused:
        choose_cases(["b", other], ["case 1"], [])
    assert f"there is '{spelled}'" in str(refused.value)


def test_names_that_differ_to_the_eye_are_not_proposed():
    assert look_alike("case_1", ["case_2", "case1", "case_1"]) == ""
    assert look_alike("Mü", ["Mu\u0308", "Mu"]) == ""  # the same, and another


@given(st.text(min_size=1, max_size=8))
def test_a_name_looks_like_itself_in_every_spelling(name):
    spellings = {unicodedata.normalize(form, name) for form in ("NFC", "NFD")}
    assert len({composed(one) for one in spellings}) == 1
    assert len({skeleton(composed(one)) for one in spellings}) == 1
