from __future__ import annotations

import csv
import json
import sys

import numpy as np
import pytest
from folders import content

import twintrack as tt
from twintrack.calibration.fitted_on import NOTES
from twintrack.cohort import read_manifest
from twintrack.report import read_examples, read_results
from twintrack.volumes import read_volume


@pytest.fixture
def evaluate(twintrack, tmp_path):
    def evaluate(*arguments, name="out"):
        folder = tmp_path / name
        return (*twintrack("evaluate", "-o", folder, *arguments), folder)

    return evaluate


def cases_of(folder):
    with (folder / "cases.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text())


def test_result_folder(evaluate, pristine_cohort):
    status, out, _, folder = evaluate("-i", pristine_cohort / "manifest.csv")
    assert status == 0
    assert sorted(content(folder, "*.*")) == ["cases.csv", "failures.csv", "summary.json"]
    rows = cases_of(folder)
    assert [row["case"] for row in rows] == [f"PHANTOM_0000{k}" for k in range(6)]
    assert list(rows[0])[:5] == ["case", "tdsc", "ece", "crps", "vi_PORTA"]
    assert "vi_CELIAC TRUNK" in rows[0]
    assert list(rows[0])[-1] == "notes"
    summary = summary_of(folder)
    assert summary["method"] == "None (uncalibrated)"
    assert summary["protocol"] == "official"
    mean = summary["means"]["tdsc"]["mean"]
    assert mean == pytest.approx(sum(float(row["tdsc"]) for row in rows) / 6, rel=1e-15)
    assert f"{mean:.6g}" in out
    assert len(summary["reliability"]["bin_count"]) == 50


def test_calibrator_on_the_fly_is_the_calibrator_applied_before(
    evaluate, twintrack, pristine_cohort, tmp_path
):
    manifest = pristine_cohort / "manifest.csv"
    model = tmp_path / "c.json"
    twintrack("fit", "-i", manifest, "-o", model, "-q")
    *_, flying = evaluate("-i", manifest, "-m", model, "--method", "ours")
    twintrack("apply", "-i", manifest, "-m", model, "-o", tmp_path / "calibrated", "-q")
    *_, applied = evaluate(
        *("-i", pristine_cohort / "cases", "-p", tmp_path / "calibrated"), name="applied"
    )
    rows, same = cases_of(flying), cases_of(applied)
    # Of volumes it is known by the names alone that the map was fitted on these cases.
    for those, known in ((rows, "same_case"), (same, "other_score")):
        for row in those:
            notes = row["notes"].split("; ")
            assert notes.pop(0) == NOTES[known]
            row["notes"] = "; ".join(notes)
    assert rows == same
    summary = summary_of(flying)
    assert summary["method"] == "ours"
    assert summary["calibrator"]["target"] == "mhr"
    assert summary_of(applied)["calibrator"] is None
    assert summary_of(applied)["method"] == "Calibrated"
    twintrack("merge", applied, "-o", tmp_path / "merged", "-q")
    assert content(tmp_path / "merged", "*.*") == content(applied, "*.*")


def test_twice_and_in_parts_and_by_processes_give_the_same_bytes(
    evaluate, twintrack, pristine_cohort, tmp_path
):
    source = ("-i", pristine_cohort / "manifest.csv", "--protocol", "corrected")
    *_, folder = evaluate(*source)
    first = content(folder, "*.*")
    evaluate(*source)
    assert content(folder, "*.*") == first
    evaluate(*source, "--force", "-npp", 1)
    assert content(folder, "*.*") == first
    for part in range(2):
        status, out, _, _ = evaluate(*source, "-num_parts", 2, "-part_id", part, name=f"part{part}")
        assert status == 0
        assert "twintrack merge" in out
        assert content(tmp_path / f"part{part}", "*.*") == {}
    merged = tmp_path / "merged"
    status, out, _ = twintrack("merge", tmp_path / "part0", tmp_path / "part1", "-o", merged)
    assert status == 0
    assert content(merged, "*.*") == first


def test_every_option_reaches_the_figures(evaluate, pristine_cohort):
    source = ("-i", pristine_cohort / "manifest.csv")
    *_, plain = evaluate(*source, name="plain")
    summary = summary_of(plain)
    decides = ("protocol", "region", "volume_unit", "staple", "tumour", "ignore_header")
    assert [summary[name] for name in decides] == ["official", "box", "voxels", False, [1], False]
    changed = ("--protocol", "corrected", "--region", "all", "--mm3", "--staple")
    status, _, err, folder = evaluate(*source, *changed, "--tumour", "1,4", "--ignore-header")
    assert status == 0, err
    summary = summary_of(folder)
    assert [summary[name] for name in decides] == ["corrected", "all", "mm3", True, [1, 4], True]
    for case, row, other in zip(
        read_manifest(source[1]), cases_of(folder), cases_of(plain), strict=True
    ):
        voxel = read_volume(case.score).voxel_volume
        assert voxel != 1
        for name in ("predicted_volume", "rater_volume"):
            assert float(row[name]) == pytest.approx(voxel * float(other[name]), rel=1e-12)
        assert 0 <= float(row["dice_staple"]) <= 1
        assert "dice_staple" not in other


def test_broken_case_goes_to_failures(evaluate, cohort):
    (cohort / "cases" / "PHANTOM_00001" / "annotation_3.nii.gz").write_bytes(b"\x1f\x8b\x08")
    status, out, err, folder = evaluate("-i", cohort / "manifest.csv")
    assert status == 1
    assert "PHANTOM_00001: failed: annotation_3.nii.gz: truncated" in err
    assert "1, see failures.csv" in out
    assert len(cases_of(folder)) == 5
    with (folder / "failures.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["case"], row["step"], row["file"]) == ("PHANTOM_00001", "read", "rater_3")
    assert str(cohort) not in row["message"]


def test_all_broken_is_status_2(evaluate, cohort):
    for score in (cohort / "predictions").iterdir():
        score.write_bytes(b"")
    status, _, _, folder = evaluate("-i", cohort / "manifest.csv", "-q")
    assert status == 2
    assert cases_of(folder) == []


def test_dry_run_and_json(evaluate, pristine_cohort):
    source = ("-i", pristine_cohort / "manifest.csv")
    status, out, _, folder = evaluate(*source, "--dry-run")
    assert status == 0
    assert not folder.exists()
    assert out.count("to do") == 7
    status, out, err, _ = evaluate(*source, "--log-json")
    events = [json.loads(line) for line in err.splitlines()]
    assert (status, out) == (0, "")
    assert events[-1]["event"] == "result"
    assert events[-1]["cases"] == 6


def test_merge_refuses_what_it_cannot_merge(evaluate, twintrack, pristine_cohort, tmp_path):
    manifest = pristine_cohort / "manifest.csv"
    *_, evaluated = evaluate("-i", manifest)
    twintrack("fit", "-i", manifest, "-o", tmp_path / "c.json", "-q")
    twintrack("apply", "-i", manifest, "-m", tmp_path / "c.json", "-o", tmp_path / "v", "-q")
    target = tmp_path / "merged"
    for parts, message in (
        ((evaluated, tmp_path / "c.tallies"), "parts of different kinds (evaluation, score-tally)"),
        ((tmp_path / "v",), "holds calibrated volumes"),
        ((tmp_path / "nowhere",), "no such folder"),
        ((manifest.parent,), "holds no finished work"),
    ):
        status, _, err = twintrack("merge", *parts, "-o", target)
        assert status == 2
        assert message in err
        assert not target.exists()


def test_results_of_another_method_are_replaced_by_force_alone(
    evaluate, twintrack, pristine_cohort, tmp_path
):
    manifest = pristine_cohort / "manifest.csv"
    *_, folder = evaluate("-i", manifest, "-q")
    tt.Calibrator("none").fit(np.zeros(1), [np.zeros(1)]).save(tmp_path / "c.json")
    before = content(folder)
    for other in (("--protocol", "corrected"), ("--method", "x"), ("-m", tmp_path / "c.json")):
        for dry in ((), ("--dry-run",)):
            status, _, err, _ = evaluate("-i", manifest, *other, *dry)
            assert (status, "is of another method" in err, "--force" in err) == (2, True, True)
    assert content(folder) == before
    # More cases of the same method are welcome, and so is the same command.
    few = tmp_path / "few.csv"
    lines = manifest.read_text().splitlines(keepends=True)
    absolute = [line.replace("cases/", f"{pristine_cohort}/cases/") for line in lines[:3]]
    few.write_text("".join(absolute).replace("predictions/", f"{pristine_cohort}/predictions/"))
    assert evaluate("-i", few, name="grown")[0] == 0
    assert evaluate("-i", manifest, name="grown")[0] == 0
    assert content(tmp_path / "grown", "*.*") == content(folder, "*.*")
    example = next((folder / "examples").iterdir())
    (folder / "examples" / "other.npz").write_bytes(example.read_bytes())
    part = ("-num_parts", 2, "-part_id")
    status, *_ = evaluate("-i", manifest, "--protocol", "corrected", "--force", *part, 0)
    assert status == 0
    # Nothing of the other method is left to pass for this one's, nor keeps its other parts away.
    assert content(folder, "*.*") == content(folder / "examples") == {}
    assert evaluate("-i", manifest, "--protocol", "corrected", *part, 1)[0] == 0


def test_merge_replaces_another_method_by_force_alone(
    evaluate, twintrack, pristine_cohort, tmp_path
):
    manifest = pristine_cohort / "manifest.csv"
    *_, corrected = evaluate("-i", manifest, "--protocol", "corrected", name="corrected")
    shown = ("--example", "PHANTOM_00001", "--example", "PHANTOM_00004")
    *_, folder = evaluate("-i", manifest, *shown)
    before = content(folder)
    status, _, err = twintrack("merge", corrected, "-o", folder)
    assert (status, 'protocol is "official", here "corrected"' in err) == (2, True)
    assert content(folder) == before
    assert twintrack("merge", corrected, "-o", folder, "--force")[0] == 0
    assert content(folder, "*.*") == content(corrected, "*.*")
    assert content(folder / "examples") == content(corrected / "examples")
    assert twintrack("merge", corrected, "-o", folder)[0] == 0  # the same once more
    status, _, err = twintrack("merge", corrected, "-o", folder, "--method", "x")
    assert (status, 'here "x"' in err) == (2, True)


def test_the_case_of_median_volume_is_shown_as_raters_and_both_scores_see_it(
    evaluate, twintrack, pristine_cohort, tmp_path
):
    manifest = pristine_cohort / "manifest.csv"
    model = tmp_path / "c.json"
    twintrack("fit", "-i", manifest, "-o", model, "-q")
    image = pristine_cohort / "cases/{case}/image.nii.gz"
    status, _, err, folder = evaluate("-i", manifest, "-m", model, "--image", image)
    assert status == 0, err
    (shown,) = read_results(folder)[1].examples  # as twintrack compare finds them
    volumes = {row["case"]: float(row["rater_volume"]) for row in cases_of(folder)}
    assert shown.case == sorted(volumes, key=volumes.get)[2]  # the lower one of the middle two
    assert np.array_equal(shown.calibrated, tt.load_calibrator(model).transform(shown.score))
    case = next(case for case in read_manifest(manifest) if case.name == shown.case)
    score = read_volume(case.score)
    raters = [read_volume(rater).array for rater in case.raters]
    plane = int(shown.slice_name.rpartition("= ")[2])
    mhr = np.mean([rater[..., plane] for rater in raters], axis=0)
    assert shown.mhr.sum() == pytest.approx(mhr.sum(), rel=1e-6)
    assert np.isin(shown.score, score.array[..., plane]).all()
    assert shown.background.std() > 0
    assert shown.radiological

    first = content(folder / "examples")
    evaluate("-i", manifest, "-m", model, "--image", image, "--force", "-npp", 1)
    assert content(folder / "examples") == first


def test_cases_may_be_chosen_to_be_shown(evaluate, twintrack, pristine_cohort, tmp_path):
    manifest = pristine_cohort / "manifest.csv"
    evaluate("-i", manifest)
    chosen = ("--example", "PHANTOM_00001", "--example", "PHANTOM_00004")
    *_, folder = evaluate("-i", manifest, *chosen)
    shown = read_examples(folder / "examples")
    assert [example.case for example in shown] == ["PHANTOM_00001", "PHANTOM_00004"]
    assert all(example.calibrated is None and example.background is None for example in shown)
    for part in range(2):  # into one folder: neither removes what the other wrote
        options = ("-num_parts", 2, "-part_id", part, "--example", "PHANTOM_00001")
        *_, folder = evaluate("-i", manifest, *options, name="parts")
    assert [path.name for path in (folder / "examples").iterdir()] == ["PHANTOM_00001.npz"]
    merged = tmp_path / "merged"
    for output in (folder, merged):
        assert twintrack("merge", folder, "-o", output)[0] == 0
        assert read_examples(output / "examples")[0].case == "PHANTOM_00001"


@pytest.mark.skipif(sys.platform != "linux", reason="a folder that nobody can write")
@pytest.mark.parametrize("command", ["evaluate", "apply"])
def test_plans_are_made_of_folders_that_cannot_be_written(
    twintrack, pristine_cohort, tmp_path, command
):
    """Archives among them: does anything remain to be done?"""
    fitted = tt.Calibrator("none").fit(np.zeros(1), [np.zeros(1)])
    fitted.save(tmp_path / "c.json")
    source = ("-i", pristine_cohort / "manifest.csv", "-m", tmp_path / "c.json")
    status, out, err = twintrack(command, *source, "-o", "/proc/results", "--dry-run")
    assert (status, err, "6 of 6 cases" in out) == (0, "", True)


def test_an_example_that_cannot_be_is_refused_before_the_work(evaluate, pristine_cohort):
    manifest = pristine_cohort / "manifest.csv"
    status, _, err, folder = evaluate("-i", manifest, "--example", "NOBODY")
    assert status == 2
    assert "--example 'NOBODY' is no case of the cohort" in err
    assert not folder.exists()
    status, _, err, _ = evaluate("-i", manifest, "--image", "image.nii.gz")
    assert status == 2
    assert "it must have {case}" in err
    for chosen, named in (((), "PHANTOM_00000"), (("--example", "PHANTOM_00003"), "PHANTOM_00003")):
        image = pristine_cohort / "cases/{case}/none.nii.gz"
        status, _, err, folder = evaluate("-i", manifest, "--image", image, *chosen)
        lost = str(image).replace("{case}", named)
        assert (status, f"{lost}: no such image of case '{named}'" in err) == (2, True)
        assert not folder.exists()


def test_images_of_other_cases_may_be_missing(evaluate, pristine_cohort, tmp_path):
    """All but that of the case of median volume, which is known when all have been measured."""
    manifest = pristine_cohort / "manifest.csv"
    *_, folder = evaluate("-i", manifest)
    (typical,) = (path.stem for path in (folder / "examples").iterdir())
    score = pristine_cohort / "predictions" / f"{typical}.nii.gz"
    image = tmp_path / "{case}.nii.gz"
    (tmp_path / f"{typical}.nii.gz").symlink_to(score)
    status, _, err, folder = evaluate("-i", manifest, "--image", image)
    assert (status, "no such image" in err) == (0, False)
    assert read_examples(folder / "examples")[0].background is not None
    (tmp_path / f"{typical}.nii.gz").rename(tmp_path / "PHANTOM_00000.nii.gz")
    status, _, err, folder = evaluate("-i", manifest, "--image", image)
    assert (status, f"{typical}.nii.gz: no such image; the slice" in err) == (0, True)
    assert [(e.case, e.background) for e in read_examples(folder / "examples")] == [(typical, None)]


def test_parts_need_images_of_their_own_cases_alone(evaluate, pristine_cohort, tmp_path):
    for name in ("PHANTOM_00001", "PHANTOM_00003"):
        score = pristine_cohort / "predictions" / f"{name}.nii.gz"
        (tmp_path / f"{name}.nii.gz").symlink_to(score)
    given = ("-i", pristine_cohort / "manifest.csv", "--image", tmp_path / "{case}.nii.gz")
    chosen = ("--example", "PHANTOM_00003", "--example", "PHANTOM_00004", "-num_parts", 2)
    assert evaluate(*given, *chosen, "-part_id", 0)[0] == 2
    assert evaluate(*given, *chosen, "-part_id", 1)[0] == 0
