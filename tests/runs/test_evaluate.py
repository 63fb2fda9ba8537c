from __future__ import annotations

import dataclasses
import math
import subprocess
from pathlib import Path

import numpy as np
import pytest
from folders import content
from killed_runs import kill_and_finish

import twintrack.metrics as tm
from twintrack import Calibrator
from twintrack.calibration.fitted_on import NOTES
from twintrack.cohort import load_case, read_manifest
from twintrack.metrics import CaseTally, curve_of
from twintrack.metrics.staple import staple_dice
from twintrack.runs.engine import Settings
from twintrack.runs.evaluate import (
    FIGURES,
    EvaluateJob,
    evaluate_cohort,
    stored_evaluation,
)
from twintrack.runs.fit import TallyJob, fit_cohort
from twintrack.runs.merge import merge_stores
from twintrack.runs.method_names import default_method
from twintrack.runs.store import open_stores
from twintrack.volumes import read_score, read_volume, write_volume


@pytest.fixture
def calibrator(cases, tmp_path):
    fitted = Calibrator(bins=40)
    fit_cohort(cases, fitted, TallyJob("roi"), tmp_path / "fit")
    return fitted


@pytest.mark.parametrize("protocol", ["official", "corrected"])
@pytest.mark.parametrize("calibrated", [False, True])
def test_figures_are_those_of_the_function(cases, calibrator, tmp_path, protocol, calibrated):
    job = EvaluateJob(protocol, calibrator if calibrated else None)
    found = evaluate_cohort(cases, job, tmp_path / "store")
    assert found.failures == []
    for case in cases:
        loaded = load_case(case, "all")
        score = loaded.score.array
        if calibrated:
            score = calibrator.transform(score)
        expected = tm.evaluate(score, loaded.raters, loaded.vessels, protocol=protocol)
        row = found.rows[case.name]
        for name in ("tdsc", "ece", "crps", "ece_probability", "ece_mhr", "ace", "brier"):
            assert row[name] == getattr(expected, name) or math.isnan(row[name])
            assert math.isnan(row[name]) == math.isnan(getattr(expected, name))
        for vessel, distance in expected.vascular_invasion.items():
            assert row[f"vi_{vessel}"] == distance
        assert row["rater_volume"] == expected.rater_volumes.mean()
        assert row["dice_staple"] is None
        fitted = (NOTES["same_case"],) if calibrated else ()  # the fixture's map is theirs
        assert tuple(found.notes[case.name]) == fitted + expected.notes
        assert tuple(row) == FIGURES


def test_options_reach_the_figures(cases, tmp_path):
    case = cases[0]
    loaded = load_case(case, "roi")

    def row(**options):
        name = "-".join(map(str, options.values()))
        found = evaluate_cohort([case], EvaluateJob(**options), tmp_path / name)
        assert found.failures == []
        return found.rows[case.name]

    plain = row(protocol="corrected")
    millimetres = row(protocol="corrected", millimetres=True)
    assert millimetres["predicted_volume"] == pytest.approx(
        plain["predicted_volume"] * loaded.score.voxel_volume
    )
    staple = row(staple=True)["dice_staple"]
    assert staple == staple_dice(loaded.score.array, loaded.raters)
    for region, mask in (("roi", loaded.region), ("all", np.ones(loaded.score.array.shape, bool))):
        expected = tm.evaluate(loaded.score.array, loaded.raters, region=mask)
        assert row(region=region)["brier"] == expected.brier


def test_millimetres_are_those_of_the_first_file_that_states_them(cohort, tmp_path):
    """A score without geometry once silently counted voxels."""
    case = read_manifest(cohort / "manifest.csv")[0]
    job = EvaluateJob("corrected", millimetres=True)
    expected = evaluate_cohort([case], job, tmp_path / "plain")
    raters = [read_volume(path).array for path in case.raters]
    vessels, scale = read_volume(case.vessels).array, read_score(case.score).voxel_volume
    assert expected.rows[case.name]["rater_volume"] == pytest.approx(
        scale * np.mean([rater.sum() for rater in raters])
    )
    bare = dataclasses.replace(case, score=tmp_path / "score.npz", roi=None)
    score = read_score(case.score).array.T
    np.savez(bare.score, probabilities=np.stack([1 - score, score]))
    found = evaluate_cohort([bare], job, tmp_path / "bare")
    assert (found.failures, found.rows) == ([], expected.rows)
    files = [tmp_path / f"{name}.npy" for name in ("v", *range(len(raters)))]
    for path, array in zip(files, (vessels, *raters), strict=True):
        np.save(path, array)
    nowhere = dataclasses.replace(bare, raters=tuple(files[1:]), vessels=files[0])
    found = evaluate_cohort([nowhere], job, tmp_path / "nowhere")
    (failure,) = found.failures
    assert failure.step == "read"
    assert failure.message.startswith("volumes in mm³ need a voxel size, which none of its files")
    assert "without --mm3" in failure.message
    assert not evaluate_cohort([nowhere], EvaluateJob(), tmp_path / "voxels").failures


def test_millimetres_that_two_files_state_differently_are_refused(cohort, tmp_path):
    """As --ignore-header lets through; which header is wrong is not for us to say."""
    case = read_manifest(cohort / "manifest.csv")[0]
    affine = np.eye(4)
    write_volume(tmp_path / "score.nii.gz", read_score(case.score).array, affine)
    other = dataclasses.replace(case, score=tmp_path / "score.nii.gz", roi=None)
    job = EvaluateJob("corrected", millimetres=True, ignore_header=True)
    (failure,) = evaluate_cohort([other], job, tmp_path / "store").failures
    assert "score.nii.gz has voxels of 1 mm³ but annotation_1.nii.gz of " in failure.message
    job = dataclasses.replace(job, millimetres=False)
    assert not evaluate_cohort([other], job, tmp_path / "voxels").failures


def test_cohort_without_vessels_has_no_such_columns(cases, tmp_path):
    bare = [dataclasses.replace(case, vessels=None) for case in cases[:2]]
    found = evaluate_cohort(bare, EvaluateJob(), tmp_path / "store")
    assert not any(name.startswith("vi_") for name in found.means())
    found.write(tmp_path, "x")
    assert "vi_" not in (tmp_path / "cases.csv").read_text()


def test_reliability_is_pooled_over_all_voxels(cases, tmp_path):
    found = evaluate_cohort(cases, EvaluateJob("corrected"), tmp_path / "store")
    total = CaseTally(3)
    for case in cases:
        loaded = load_case(case, "box")
        total.update(loaded.score.array, loaded.raters, loaded.region)
    assert found.total == total
    assert np.array_equal(curve_of(found.total).count, curve_of(total).count)


def test_stored_tally_is_read_back_and_a_broken_one_refused(cases, tmp_path):
    job = EvaluateJob()
    tally = job.compute(job.read(cases[0])).tally
    path = tmp_path / "A.npz"
    job.save_tally(tally, path)
    assert job.load_tally(path) == tally
    with np.load(path) as stored:
        parts = dict(stored)
    for broken in (
        {**parts, "format": np.array("other")},
        {**parts, "format_version": np.array(3)},
        {**parts, "votes": parts["votes"][:-1]},
        {**parts, "score_bins": parts["confidence_bins"], "confidence_bins": parts["score_bins"]},
        {name: part for name, part in parts.items() if name != "squares"},
        {**parts, "votes": np.array([{}], object)},
    ):
        np.savez(path, **broken)
        with pytest.raises(ValueError, match=r"A\.npz"):
            job.load_tally(path)
    path.write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"A\.npz"):
        job.load_tally(path)


def test_broken_cases_are_reported_and_the_others_finished(cohort, tmp_path):
    cases = read_manifest(cohort / "manifest.csv")
    Path(cases[0].raters[1]).unlink()
    Path(cases[2].vessels).write_bytes(b"\x1f\x8bnonsense")
    found = evaluate_cohort(cases, EvaluateJob(), tmp_path / "store")
    assert sorted(found.rows) == [case.name for case in cases if case not in (cases[0], cases[2])]
    assert [(failure.case, failure.file) for failure in found.failures] == [
        (cases[0].name, "rater_2"),
        (cases[2].name, "vessels"),
    ]
    assert all(str(cohort) not in failure.message for failure in found.failures)


def test_equal_runs_write_equal_bytes_whatever_the_number_of_threads(cases, tmp_path):
    for name, order, workers in (("a", cases, 1), ("b", cases[::-1], 6), ("b", cases, 2)):
        (tmp_path / name).mkdir(exist_ok=True)
        found = evaluate_cohort(
            order, EvaluateJob(), tmp_path / name / "store", settings=Settings(workers=workers)
        )
        found.write(tmp_path / name, "x")
    assert content(tmp_path / "a", "*.*") == content(tmp_path / "b", "*.*")
    assert str(tmp_path).encode() not in b"".join(content(tmp_path / "a", "*.*").values())


def test_calibrator_and_protocol_have_stores_of_their_own(cases, calibrator, tmp_path):
    store = tmp_path / "store"
    plain = evaluate_cohort(cases[:2], EvaluateJob(), store)
    evaluate_cohort(cases[:2], EvaluateJob(calibrator=calibrator), store)
    evaluate_cohort(cases[:2], EvaluateJob("corrected"), store)
    assert len(open_stores(store)) == 3
    again = evaluate_cohort(cases[:2], EvaluateJob(), store)
    assert again.rows == plain.rows


@pytest.mark.parametrize(
    "changed",
    [
        *({"protocol": "corrected"}, {"region": "all"}, {"millimetres": True}, {"staple": True}),
        *({"tumour": (2,)}, {"tumour": (1, 2)}, {"ignore_header": True}),
    ],
)
def test_everything_that_decides_a_figure_is_in_the_options(calibrator, changed):
    """Else figures of one way of measuring would be found, and shown, as another's."""
    plain = EvaluateJob()
    assert dataclasses.replace(plain, **changed).options != plain.options
    assert EvaluateJob(calibrator=calibrator).options != plain.options


@pytest.mark.parametrize(("protocol", "dice"), [("official", 0), ("corrected", 1)])
def test_nothing_predicted_and_nothing_marked_has_the_dice_of_its_protocol(
    cases, tmp_path, protocol, dice
):
    whole = read_score(cases[0].score)
    write_volume(tmp_path / "score.nii.gz", np.zeros_like(whole.array), whole)
    for k in range(2):
        write_volume(tmp_path / f"r{k}.nii.gz", np.zeros(whole.array.shape, np.uint8), whole)
    files = {"raters": tuple(tmp_path / f"r{k}.nii.gz" for k in range(2)), "vessels": None}
    case = dataclasses.replace(cases[0], score=tmp_path / "score.nii.gz", **files)
    found = evaluate_cohort([case], EvaluateJob(protocol, staple=True), tmp_path / "store")
    assert found.rows[case.name]["dice_staple"] == dice


def test_method_is_named_after_the_target(calibrator):
    assert default_method(EvaluateJob().options) == "None (uncalibrated)"
    assert default_method(EvaluateJob(calibrator=calibrator).options) == "MHR (TwinTrack)"
    assert default_method(EvaluateJob().options, calibrated=True) == "Calibrated"


def test_merged_parts_equal_the_whole(cohort, tmp_path):
    cases = read_manifest(cohort / "manifest.csv")
    Path(cases[3].raters[0]).write_bytes(b"")  # one case fails in its part
    job = EvaluateJob()
    whole = evaluate_cohort(cases, job, tmp_path / "whole" / "store")
    whole.write(tmp_path / "whole", "x")
    stores = []
    for part in range(3):
        stores.append(tmp_path / f"part{part}")
        evaluate_cohort(cases[part::3], job, stores[-1], cohort=cases)
    merged = stored_evaluation(merge_stores(stores, tmp_path / "merged" / "store", "evaluation"))
    merged.write(tmp_path / "merged", "x")
    assert content(tmp_path / "merged", "*.*") == content(tmp_path / "whole", "*.*")
    with pytest.raises(ValueError, match="2 of 6 cases are missing"):
        merge_stores(stores[:2], tmp_path / "incomplete", "evaluation")
    assert not (tmp_path / "incomplete").exists()


def test_parts_that_do_not_belong_together_are_refused(cohort, tmp_path):
    cases = read_manifest(cohort / "manifest.csv")
    one, two, three = (tmp_path / name for name in ("one", "two", "three"))
    evaluate_cohort(cases[:2], EvaluateJob(), one)
    evaluate_cohort(cases[1:3], EvaluateJob("corrected"), two)
    with pytest.raises(ValueError, match="two: was made with another protocol than"):
        merge_stores([one, two], tmp_path / "merged", "evaluation")
    score = read_score(cases[1].score)
    write_volume(cases[1].score, 1 - score.array, score)
    evaluate_cohort(cases[1:3], EvaluateJob(), three)
    with pytest.raises(
        ValueError, match=rf"three: case '{cases[1].name}' was made from other files"
    ):
        merge_stores([one, three], tmp_path / "merged", "evaluation")
    assert not (tmp_path / "merged").exists()


def test_a_part_that_others_cannot_be_merged_into_stays_as_it_was(cohort, tmp_path):
    """Else it would count as unfinished, or hold cases of files that are not there any more."""
    cases = read_manifest(cohort / "manifest.csv")
    one, two = tmp_path / "one", tmp_path / "two"
    evaluate_cohort(cases[:2], EvaluateJob(), one)
    before = content(one)
    score = read_score(cases[0].score)
    write_volume(cases[0].score, 1 - score.array, score)
    evaluate_cohort(cases[:4], EvaluateJob(), two)
    with pytest.raises(ValueError, match="was made from other files"):
        merge_stores([one, two], one, "evaluation")
    assert content(one) == before


@pytest.mark.parametrize("damage", [Path.unlink, lambda tally: tally.write_bytes(b"")])
def test_parts_with_a_damaged_tally_are_refused_while_nothing_is_written(cohort, tmp_path, damage):
    cases = read_manifest(cohort / "manifest.csv")[:2]
    one, two = tmp_path / "one", tmp_path / "two"
    evaluate_cohort(cases[:1], EvaluateJob(), one)
    evaluate_cohort(cases[1:], EvaluateJob(), two)
    (tally,) = two.rglob("*.npz")
    damage(tally)
    before = content(one)
    with pytest.raises(ValueError, match=rf"two/.*/{tally.name}: damaged"):
        merge_stores([one, two], one, "evaluation")
    assert content(one) == before


def test_killed_at_any_moment_and_resumed_ends_the_same(
    pristine_cohort, tmp_path, command, environment
):
    def start(name):
        arguments = ["-i", str(pristine_cohort / "manifest.csv"), "-o", str(tmp_path / name)]
        return subprocess.Popen(
            [*command, "evaluate", *arguments, "-npp", "1", "-q"], env=environment
        )

    assert start("whole").wait() == 0
    kill_and_finish(lambda: start("killed"), tmp_path / "killed", "store/*/cases/*.json", (1, 4))
    assert content(tmp_path / "killed", "*.*") == content(tmp_path / "whole", "*.*")
    assert not list((tmp_path / "killed").glob("store/*/staging-*"))


@pytest.fixture
def cropped(cases, tmp_path):
    """A case whose score is a crop that misses marks, and the same with 0 around it and a mask."""
    whole = read_score(cases[0].score)
    marked = np.argwhere(sum(read_volume(path).array for path in cases[0].raters))
    box = tuple(
        slice(low, high) for low, high in zip(marked.min(0) + 1, marked.max(0) + 3, strict=True)
    )
    affine = whole.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [side.start for side in box]
    score, mask = np.zeros_like(whole.array), np.zeros(whole.array.shape, np.uint8)
    score[box], mask[box] = whole.array[box], 1
    score[tuple(side.start for side in box)] = 0  # asked, and answered with 0
    write_volume(tmp_path / "crop.nii.gz", score[box], affine)
    write_volume(tmp_path / "around.nii.gz", score, whole)
    write_volume(tmp_path / "mask.nii.gz", mask, whole)
    crop = dataclasses.replace(cases[0], score=tmp_path / "crop.nii.gz", roi=None)
    around = dataclasses.replace(
        crop, score=tmp_path / "around.nii.gz", roi=tmp_path / "mask.nii.gz"
    )
    return crop, around, box


@pytest.mark.parametrize("at_0", [None, 0, 0.5])
def test_score_that_is_a_crop_counts_as_0_outside(cropped, calibrator, tmp_path, at_0):
    """Else volumes, and Dice at each threshold, would lose what raters mark outside."""
    crop, around, box = cropped
    if at_0:  # a map that would lift what was never asked, all over the CT
        score = np.linspace(0, 1, 1000, dtype=np.float32)
        calibrator = Calibrator(bins=5).fit(score, [score > 0.4, np.ones_like(score)])
    assert at_0 in (None, calibrator.transform(np.zeros(1))[0])
    job = EvaluateJob("corrected", None if at_0 is None else calibrator)
    found, expected = (
        evaluate_cohort([case], job, tmp_path / case.score.name[:4]) for case in (crop, around)
    )
    assert found.failures == expected.failures == []
    assert found.rows == expected.rows
    assert found.total == expected.total
    raters = [read_volume(path).array for path in crop.raters]
    outside = sum(np.count_nonzero(rater) - np.count_nonzero(rater[box]) for rater in raters)
    assert outside > 0
    (note,) = set(found.notes[crop.name]) - set(expected.notes[crop.name])
    assert f"raters mark {outside} voxels" in note
    # A region of the whole CT, as twintrack predict writes it, leaves out what was never asked too.
    everywhere = np.ones(raters[0].shape, np.uint8)
    write_volume(tmp_path / "all.nii.gz", everywhere, read_volume(crop.raters[0]))
    named = dataclasses.replace(crop, roi=tmp_path / "all.nii.gz")
    assert evaluate_cohort([named], job, tmp_path / "named").rows == expected.rows


def test_bad_voxel_of_a_crop_is_placed_in_its_file(cropped, tmp_path):
    crop, _, _ = cropped
    score = read_score(crop.score)
    score.array[2, 1, 0] = 2
    write_volume(crop.score, score.array, score)
    (failure,) = evaluate_cohort([crop], EvaluateJob(), tmp_path / "store").failures
    assert failure.message.startswith("crop.nii.gz: voxel (2, 1, 0) is 2")
