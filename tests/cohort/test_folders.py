from __future__ import annotations

import pytest
from folders import touch

from twintrack.cohort import find_scores, read_folders
from twintrack.cohort.case import missing_raters


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


def test_scores_of_every_format(tmp_path):
    """1.2 of the names is no suffix, and what lies beside a score is none."""
    suffixes = (".npz", ".nii.gz", ".nii", ".npy", ".mha", ".mhd", ".nrrd", ".nhdr")
    names = {suffix: f"1.2.{number}" for number, suffix in enumerate(suffixes)}
    touch(tmp_path, *(name + suffix for suffix, name in names.items()))
    touch(tmp_path, "1.2.5.raw", "1.2.5.zraw", "1.2.0.nii.gz", "1.2.3.mha", "1.2.4.mhd", "a.txt")
    touch(tmp_path, "1.2.6.seg.nrrd", "b.seg.nrrd", "c.seg.nhdr")  # annotations
    assert find_scores(tmp_path) == {
        name: tmp_path / (name + suffix) for suffix, name in names.items()
    }


def test_a_case_need_not_have_all_raters(tmp_path):
    touch(tmp_path / "in", *(f"{case}/annotation_{k}.nii.gz" for case in "abc" for k in (1, 2, 3)))
    touch(tmp_path / "out", "a.npz", "b.npz", "c.npz")
    (tmp_path / "in/b/annotation_2.nii.gz").unlink()
    cases = read_folders(tmp_path / "in", tmp_path / "out")
    assert [[k + 1 for k in case.annotations] for case in cases] == [[1, 2, 3], [1, 3], [1, 2, 3]]
    assert missing_raters(cases) == {1: ["b"]}
    # The same number of raters is not the same raters.
    for case in "ac":
        (tmp_path / f"in/{case}/annotation_3.nii.gz").unlink()
    cases = read_folders(tmp_path / "in", tmp_path / "out")
    assert missing_raters(cases) == {1: ["b"], 2: ["a", "c"]}
    with pytest.raises(ValueError, match="'b': it has none of the raters 2; .*--without b"):
        read_folders(tmp_path / "in", tmp_path / "out", use_raters=[2])


def test_out_of_fold_predictions_are_one_cohort(tmp_path):
    """All folds count: with the last one alone the map would rest on a fifth of the cases."""
    folds = {0: ("b10", "a"), 1: ("b2",)}
    for fold, cases in folds.items():
        validation = tmp_path / f"model/fold_{fold}/validation"
        touch(validation, "summary.json", *(f"{case}.npz" for case in cases))
        touch(tmp_path / "in", *(f"{case}/annotation_1.nii.gz" for case in cases))
    model = tmp_path / "model"
    wanted = {
        "a": model / "fold_0/validation/a.npz",
        "b2": model / "fold_1/validation/b2.npz",
        "b10": model / "fold_0/validation/b10.npz",
    }
    each = [model / f"fold_{fold}/validation" for fold in (0, 1)]
    for given in (model, [model], each):
        cohort = read_folders(tmp_path / "in", given)
        assert {case.name: case.score for case in cohort} == wanted
        assert [case.name for case in cohort] == ["a", "b2", "b10"]
    touch(each[1], "a.npz")
    with pytest.raises(ValueError, match=r"fold_1/validation/a\.npz: is of .* as .*/fold_0/"):
        read_folders(tmp_path / "in", model)
    with pytest.raises(ValueError, match=r"in: no predictions"):
        read_folders(tmp_path / "in", [each[0], tmp_path / "in"])


def test_fold_all_is_not_out_of_fold(tmp_path):
    """nnU-Net validates it on its own training cases: a map fitted to those is over-confident."""
    model = tmp_path / "model"
    touch(tmp_path / "in", *(f"{case}/annotation_1.nii.gz" for case in "ab"))
    touch(model / "fold_all/validation", "a.npz", "b.npz")
    message = r"fold_all/validation: nnU-Net validates fold 'all' on the very cases"
    for given in (model, model / "fold_all/validation"):
        with pytest.raises(ValueError, match=message):
            read_folders(tmp_path / "in", given)
    with pytest.raises(ValueError, match=message):
        find_scores(model)
    touch(model / "fold_0/validation", "b.npz")
    touch(model / "fold_10/validation", "a.npz")
    assert find_scores(model) == {
        "a": model / "fold_10/validation/a.npz",
        "b": model / "fold_0/validation/b.npz",
    }


def test_predictions_without_annotations_are_left_out_on_request(tmp_path):
    """Of the cases that a network is validated on few have several raters."""
    touch(tmp_path / "in", *(f"{case}/annotation_{k}.nii.gz" for case in "bd" for k in (1, 2)))
    touch(tmp_path / "in", "c/annotation_1.nii.gz")
    touch(tmp_path / "out", *(f"{case}.npz" for case in "abcde"))
    told: list[list[str]] = []
    everything = (tmp_path / "in", tmp_path / "out")
    found = read_folders(*everything, left_out=told.append)
    assert [len(case.annotations) for case in found] == [2, 1, 2]  # some raters is not none
    assert told == [["a", "e"]]

    def all_but_c(names: list[str]) -> list[str]:
        return [name for name in names if name != "c"]

    found = read_folders(*everything, select=all_but_c, left_out=told.append)
    assert [case.name for case in found] == ["b", "d"]
    found = read_folders(*everything, select=lambda _: ["b"])
    assert [case.name for case in found] == ["b"]
    with pytest.raises(FileNotFoundError, match=r"2 missing:.*\n.*'a'.*\n.*'e'"):
        read_folders(*everything, select=lambda _: ["a", "b", "e"])
    assert len(told) == 2
    with pytest.raises(FileNotFoundError, match=r"2 missing"):
        read_folders(*everything, select=lambda _: ["a", "e"], left_out=told.append)
    assert len(told) == 2


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


@pytest.mark.parametrize(
    ("pattern", "called"),
    [("{case}/annotation_{k}.nii.gz", ("1", "2", "10")), ("{case}_*.nii", ("ann", "bo", "eve"))],
)
def test_raters_are_chosen_by_their_place_among_all(tmp_path, pattern, called):
    """10 is the third; neither a rater who is missing in a case nor a choice of cases moves it."""
    files = pattern.replace("{k}", "*")
    for case, raters in {"a": called, "b": called[::2], "c": called}.items():
        touch(tmp_path / "in", *(files.replace("{case}", case).replace("*", k) for k in raters))
        touch(tmp_path / "out", f"{case}.npz")

    def read(*numbers: int, only: str = "abc") -> list[list[str]]:
        found = read_folders(
            tmp_path / "in",
            tmp_path / "out",
            pattern,
            select=lambda _: list(only),
            use_raters=numbers or None,
        )
        return [[file.name for file in case.annotations.values()] for case in found]

    def of(*raters: str, only: str = "abc") -> list[list[str]]:
        names = [files.replace("{case}", case).rpartition("/")[2] for case in only]
        return [[name.replace("*", rater) for rater in raters] for name in names]

    assert read(3, 1) == of(called[0], called[2])
    assert read(3, only="b") == of(called[2], only="b")
    assert read(only="ac") == of(*called, only="ac")
    assert read(only="b") == of(called[0], called[2], only="b")
    assert read(1, 2) == [
        *of(*called[:2], only="a"),
        *of(called[0], only="b"),
        *of(*called[:2], only="c"),
    ]
    with pytest.raises(ValueError, match=rf"use_raters is 4.*3 \({called[2]}\)"):
        read(4)
