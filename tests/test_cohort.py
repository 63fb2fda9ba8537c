from __future__ import annotations

import dataclasses
import errno
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from twintrack.cohort import (
    Case,
    annotated_box,
    load_case,
    read_folders,
    read_manifest,
    write_manifest,
)
from twintrack.volumes import read_score, write_volume

SHAPE = (6, 5, 4)
AFFINE = np.diag([-0.7, -0.7, 2.5, 1.0])

fuzz = settings(
    deadline=None,
    derandomize=True,
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def manifest(folder: Path, text: str) -> Path:
    """Write a manifest beside the empty files s.npz, r1.nii, r2.nii, v.nii and m.nii."""
    touch(folder, "s.npz", "r1.nii", "r2.nii", "v.nii", "m.nii")
    path = folder / "cohort.csv"
    path.write_text(text, encoding="utf-8", newline="")
    return path


# --- manifests --------------------------------------------------------------------------------


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_manifest_as_spreadsheets_write_it(tmp_path, line_end, mark):
    rows = ["vessels,rater_2,case,score,rater_1,roi", "v.nii,r2.nii,b 1,s.npz,r1.nii,", "", ",,,,,"]
    rows.append('," r2.nii ",a,s.npz,r1.nii,m.nii')
    path = manifest(tmp_path, mark + line_end.join(rows) + line_end)
    raters = (tmp_path / "r1.nii", tmp_path / "r2.nii")
    assert read_manifest(path) == [
        Case("b 1", tmp_path / "s.npz", raters, vessels=tmp_path / "v.nii"),
        Case("a", tmp_path / "s.npz", raters, roi=tmp_path / "m.nii"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no cases"),
        ("case,score,rater_1\n", "no cases"),
        ("case;score;rater_1\na;s.npz;r1.nii\n", "semicolons"),
        ("case,score,rater_1,mask\na,s.npz,r1.nii,m.nii\n", "unknown column 'mask'"),
        ("case,score,rater_1,rater_1\na,s.npz,r1.nii,r2.nii\n", "'rater_1' appears twice"),
        ("case,score\na,s.npz\n", "'rater_1' is missing"),
        ("case,rater_1\na,r1.nii\n", "'score' is missing"),
        ("case,score,rater_1,rater_3\na,s.npz,r1.nii,r2.nii\n", "'rater_2' is missing"),
        ("case,score,rater_1\na,s.npz,r1.nii\na,s.npz,r1.nii\n", "row 3: case 'a' appears twice"),
        ("case,score,rater_1\na,,r1.nii\n", "row 2, column 'score'.*'a'"),
        ("case,score,rater_1,rater_2\na,s.npz,r1.nii,\n", "row 2, column 'rater_2'.*'a'"),
        ("case,score,rater_1,rater_2\n\na,s.npz,r1.nii\n", "row 3 has 3 cells, its header has 4"),
        ("case,score,rater_1,rater_2\na,s.npz,r1.nii,r1.nii\n", "same file for two raters"),
        ("case,score,rater_1\n,s.npz,r1.nii\n", "row 2: case name ''"),
        ("case,score,rater_1\n../a,s.npz,r1.nii\n", r"row 2: case name '\.\./a'"),
        ("case,score,rater_1\n..,s.npz,r1.nii\n", r"row 2: case name '\.\.'"),
        ('case,score,rater_1\n"a\nb",s.npz,r1.nii\n', "row 3: case name"),
    ],
)
def test_faulty_manifest_names_file_row_and_column(tmp_path, text, message):
    with pytest.raises(ValueError, match=rf"cohort\.csv: .*{message}"):
        read_manifest(manifest(tmp_path, text))


def test_manifest_lists_missing_files_with_row_and_column(tmp_path):
    text = "case,score,rater_1,roi\na,s.npz,r1.nii,x.nii\nb,y.npz,r1.nii,\n"
    with pytest.raises(FileNotFoundError) as caught:
        read_manifest(manifest(tmp_path, text))
    assert caught.value.errno == errno.ENOENT
    message = str(caught.value)
    assert f"row 2, column 'roi': {tmp_path / 'x.nii'}" in message
    assert f"row 3, column 'score': {tmp_path / 'y.npz'}" in message
    with pytest.raises(FileNotFoundError, match=r"absent\.csv"):
        read_manifest(tmp_path / "absent.csv")


@given(
    st.binary(max_size=80) | st.text(max_size=80).map(lambda text: text.encode("utf-8", "replace"))
)
@fuzz
def test_any_bytes_as_manifest_fail_cleanly(tmp_path, content):
    path = tmp_path / "cohort.csv"
    path.write_bytes(content)
    with pytest.raises((ValueError, OSError), match=r"cohort\.csv"):
        read_manifest(path)


def test_written_manifest_reads_back_and_moves_with_its_folder(tmp_path):
    home, away = tmp_path / "home", tmp_path / 'away, "quoted"'
    touch(home, "s/a.npz", "r/ä_1.nii.gz", "r/ä_2.nii.gz", "v.nii")
    touch(away, "b.npz", "1.nii", "2.nii", "roi.nii")
    cases = [
        Case("a", home / "s/a.npz", (home / "r/ä_1.nii.gz", home / "r/ä_2.nii.gz"), home / "v.nii"),
        Case("b", away / "b.npz", (away / "1.nii", away / "2.nii"), roi=away / "roi.nii"),
    ]
    write_manifest(home / "cohort.csv", cases)
    assert read_manifest(home / "cohort.csv") == cases
    moved = home.rename(tmp_path / "moved")
    assert read_manifest(moved / "cohort.csv")[0].score == moved / "s/a.npz"


def test_unwritable_cohorts_are_refused_and_leave_nothing(tmp_path):
    one = Case("a", tmp_path / "s.npz", (tmp_path / "1.nii",))
    two = dataclasses.replace(one, name="b", raters=(tmp_path / "1.nii", tmp_path / "2.nii"))
    for cases, message in [
        ([], "no cases"),
        ([one, one], "same name"),
        ([one, two], "'a' has 1 raters.*also have 2"),
        ([dataclasses.replace(one, name="a/b")], "'a/b'"),
    ]:
        with pytest.raises(ValueError, match=message):
            write_manifest(tmp_path / "cohort.csv", cases)
    assert list(tmp_path.iterdir()) == []


# --- folders ----------------------------------------------------------------------------------


def test_curvas_layout_with_an_nnunet_prediction_folder(tmp_path):
    cases, predictions = tmp_path / "train", tmp_path / "fold_0"
    for case in ("CURVASPDAC_2", "CURVASPDAC_10", "CURVASPDAC_11"):
        touch(cases / case, "image.nii.gz", "annotation_staple.nii.gz", ".annotation_9.nii.gz")
        touch(cases / case, *(f"annotation_{k}.nii.gz" for k in range(1, 12)))
    touch(cases / "CURVASPDAC_2", "vessels.nii.gz", "._vessels.nii.gz", "roi.nii.gz")
    touch(predictions, "CURVASPDAC_10.nii.gz", "CURVASPDAC_2.nii.gz", "._CURVASPDAC_2.nii.gz")
    touch(predictions, "CURVASPDAC_2.npz", "CURVASPDAC_2.pkl", "dataset.json", "plans.json")

    found = read_folders(cases, predictions)

    assert [case.name for case in found] == ["CURVASPDAC_2", "CURVASPDAC_10"]
    assert found[0].score == predictions / "CURVASPDAC_2.npz"
    assert found[1].score == predictions / "CURVASPDAC_10.nii.gz"
    assert found[0].vessels == cases / "CURVASPDAC_2/vessels.nii.gz"
    assert found[0].roi == cases / "CURVASPDAC_2/roi.nii.gz"
    assert found[1].vessels is found[1].roi is None
    names = [f"annotation_{k}.nii.gz" for k in range(1, 12)]  # 10 after 9, not after 1
    assert [[file.name for file in case.raters] for case in found] == [names, names]
    assert read_folders(cases, predictions, raters="annotation_*.nii.gz") == found


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("labelsTr/{case}_ann{k}.nii.gz", "labelsTr/{}_ann{}.nii.gz"),
        ("{case}_{k:02d}.nii.gz", "{}_{:02d}.nii.gz"),
        ("rater_{k}/{case}.nii.gz", "rater_{1}/{0}.nii.gz"),
        ("{case}/by_*.nii.gz", "{}/by_{}.nii.gz"),
    ],
)
def test_spellings_of_rater_files(tmp_path, pattern, names):
    # The names contain each other, wildcards and what looks like another case's rater.
    cases = ["a", "a_1", "a*", "a+", "a_01"]
    raters = [1, 2, 10]
    for case in cases:
        touch(tmp_path / "in", *(names.format(case, k) for k in raters))
        touch(tmp_path / "out", f"{case}.npz")
    found = {
        case.name: case.raters for case in read_folders(tmp_path / "in", tmp_path / "out", pattern)
    }
    assert found == {
        case: tuple(tmp_path / "in" / names.format(case, k) for k in raters) for case in cases
    }


def test_missing_rater_is_named_with_its_case(tmp_path):
    touch(tmp_path / "in", *(f"{case}/annotation_{k}.nii.gz" for case in "abc" for k in (1, 2, 3)))
    touch(tmp_path / "out", "a.npz", "b.npz", "c.npz")
    (tmp_path / "in/b/annotation_2.nii.gz").unlink()
    with pytest.raises(ValueError, match=r"'b' has 2 raters \(1, 3\).*also have 2;"):
        read_folders(tmp_path / "in", tmp_path / "out")
    # The same number of raters is not the same raters.
    for case in "ac":
        (tmp_path / f"in/{case}/annotation_3.nii.gz").unlink()
    with pytest.raises(ValueError, match=r"'a'.*3"):
        read_folders(tmp_path / "in", tmp_path / "out")


def test_folders_without_what_is_needed(tmp_path):
    touch(tmp_path / "in", "a/annotation_1.nii.gz", "a/vessel.nii.gz", "a/vessels.nii.gz")
    touch(tmp_path / "empty", "plans.json")
    touch(tmp_path / "out", "a.npz")
    touch(tmp_path / "more", "a.npz", "b.npz")
    with pytest.raises(ValueError, match=r"empty.*no predictions"):
        read_folders(tmp_path / "in", tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="absent"):
        read_folders(tmp_path / "in", tmp_path / "absent")
    with pytest.raises(
        FileNotFoundError, match=r"1 missing:\n.*'b': .*in/b/annotation_{k}\.nii\.gz"
    ):
        read_folders(tmp_path / "in", tmp_path / "more", vessels=None)
    with pytest.raises(ValueError, match=r"'a'.*several.*vessel\.nii\.gz, vessels\.nii\.gz"):
        read_folders(tmp_path / "in", tmp_path / "out")
    with pytest.raises(ValueError, match=r"\{rater\}"):
        read_folders(tmp_path / "in", tmp_path / "out", raters="{case}/{rater}.nii.gz")


# --- the annotated box ------------------------------------------------------------------------


@given(
    shape=st.tuples(*[st.integers(1, 60)] * 3),
    margin=st.integers(0, 25),
    dtype=st.sampled_from(["?", "u1", "i2", "f8"]),
    data=st.data(),
)
@fuzz
def test_annotated_box_is_the_grown_and_clamped_box_of_the_union(shape, margin, dtype, data):
    voxel = st.tuples(*(st.integers(0, length - 1) for length in shape))
    marks = data.draw(st.lists(voxel, min_size=1, max_size=5))
    raters = [np.zeros(shape, dtype, order) for order in "CFF"]
    raters[1] = np.zeros((*shape, 2), dtype)[..., 0]  # neither order
    for number, mark in enumerate(marks):
        raters[number % 3][mark] = 1
    expected = tuple(
        slice(max(min(axis) - margin, 0), min(max(axis) + margin + 1, length))
        for axis, length in zip(zip(*marks, strict=True), shape, strict=True)
    )
    assert annotated_box(raters, margin) == expected


def test_annotated_box_without_annotation_or_of_two_shapes():
    with pytest.raises(ValueError, match="no rater marks any voxel"):
        annotated_box([np.zeros(SHAPE), np.zeros(SHAPE)])
    with pytest.raises(ValueError, match="no raters"):
        annotated_box([])
    with pytest.raises(ValueError, match="rater 2 has shape"):
        annotated_box([np.ones(SHAPE), np.ones((6, 5, 3))])


# --- loading ----------------------------------------------------------------------------------


def make_case(folder: Path) -> Case:
    """A case on disk: two raters, a vessel map of type int16 and a mask of type float64."""
    rng = np.random.default_rng(0)
    files = {
        "score": rng.random(SHAPE, "f4"),
        "r1": np.zeros(SHAPE, "i2"),
        "r2": np.zeros(SHAPE, "u1"),
        "vessels": rng.integers(0, 6, SHAPE).astype("i2"),
        "roi": rng.random(SHAPE) > 0.5,
    }
    files["r1"][3, 2, 1] = files["r2"][3, 3, 1] = 1
    for name, array in files.items():
        write_volume(folder / f"{name}.nii.gz", array, AFFINE)
    write_volume(folder / "roi.nii.gz", files["roi"].astype("f8"), AFFINE, "float64")
    path = {name: folder / f"{name}.nii.gz" for name in files}
    return Case("a", path["score"], (path["r1"], path["r2"]), path["vessels"], path["roi"])


def test_load_case_gives_arrays_on_one_grid(tmp_path):
    case = make_case(tmp_path)
    loaded = load_case(case, "all")
    assert loaded.case == case
    assert loaded.region is None
    assert [array.dtype for array in loaded.raters] == [np.int16, np.uint8]
    assert loaded.vessels.dtype == np.uint8
    assert {array.shape for array in (*loaded.raters, loaded.vessels)} == {SHAPE}
    np.testing.assert_array_equal(loaded.score.array, read_score(case.score).array)
    assert load_case(dataclasses.replace(case, vessels=None, roi=None), "all").vessels is None


def test_region_rules(tmp_path, monkeypatch):
    case = make_case(tmp_path)
    mask = load_case(case, "roi").region
    assert mask.dtype == np.bool_
    np.testing.assert_array_equal(mask, read_score(case.roi).array == 1)

    monkeypatch.setattr(annotated_box, "__defaults__", (1,))  # a margin that does not fill all
    box = load_case(case, "box").region
    expected = np.zeros(SHAPE, bool)
    expected[2:5, 1:5, 0:3] = True
    np.testing.assert_array_equal(box, expected)

    with pytest.raises(ValueError, match="'roi' needs a mask"):
        load_case(dataclasses.replace(case, roi=None), "roi")
    with pytest.raises(ValueError, match="region_rule='mask'"):
        load_case(case, "mask")


@pytest.mark.parametrize("name", ["r2", "vessels", "roi"])
def test_header_fault_of_any_file_is_found_and_can_be_overridden(tmp_path, name):
    # CURVAS 2024 has an annotation whose header alone is wrong.
    case = make_case(tmp_path)
    fault = tmp_path / f"{name}.nii.gz"
    array = np.ones(SHAPE, "u1")
    write_volume(fault, array, AFFINE * [[1], [1], [1.5], [1]])
    with pytest.raises(ValueError, match=rf"{name}\.nii\.gz: geometry.*score\.nii\.gz.*spacing"):
        load_case(case, "roi")
    load_case(case, "roi", ignore_header=True)
    write_volume(fault, array[:-1], AFFINE)
    with pytest.raises(ValueError, match=rf"{name}\.nii\.gz: shape"):
        load_case(case, "roi", ignore_header=True)


def test_annotations_are_compared_with_each_other_where_the_score_has_no_geometry(tmp_path):
    case = make_case(tmp_path)
    score = np.stack([np.zeros(SHAPE[::-1], "f4"), np.ones(SHAPE[::-1], "f4")])
    np.savez(tmp_path / "a.npz", probabilities=score)
    case = dataclasses.replace(case, score=tmp_path / "a.npz")
    assert (load_case(case, "all").score.array == 1).all()
    assert (load_case(case, "all", tumour=(0,)).score.array == 0).all()
    write_volume(tmp_path / "r2.nii.gz", np.ones(SHAPE, "u1"), AFFINE * 2)
    with pytest.raises(ValueError, match=r"r2\.nii\.gz: geometry differs from .*r1\.nii\.gz"):
        load_case(case, "all")


def test_unusable_masks_and_annotations_are_named(tmp_path):
    case = make_case(tmp_path)
    mask = np.zeros(SHAPE, "u1")
    write_volume(case.roi, mask, AFFINE)
    with pytest.raises(ValueError, match=r"roi\.nii\.gz: the mask is empty"):
        load_case(case, "roi")
    mask[5, 0, 3] = 2
    write_volume(case.roi, mask, AFFINE)
    with pytest.raises(ValueError, match=r"roi\.nii\.gz: voxel \(5, 0, 3\) is 2"):
        load_case(case, "roi")
    for rater in case.raters:
        write_volume(rater, np.zeros(SHAPE, "u1"), AFFINE)
    with pytest.raises(ValueError, match="case 'a': no rater marks any voxel"):
        load_case(case, "box")
    case.raters[1].write_bytes(case.raters[1].read_bytes()[:-3])
    with pytest.raises(ValueError, match=r"r2\.nii\.gz: truncated"):
        load_case(case, "all")
