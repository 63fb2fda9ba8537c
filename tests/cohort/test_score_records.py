"""What the files beside a score tell of it, through every command that needs it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from twintrack import Calibrator
from twintrack.cohort import Case
from twintrack.cohort.score_records import (
    calibrate_score,
    ensemble_of_score,
    join_ensembles,
    region_of_case,
)
from twintrack.runs.apply import ApplyJob, apply_cohort
from twintrack.runs.evaluate import EvaluateJob, evaluate_cohort
from twintrack.runs.fit import TallyJob, fit_cohort, fit_tallies, read_tallies
from twintrack.volumes import read_volume, write_volume

SHAPE = (14, 12, 10)
BOX = (slice(2, 12), slice(3, 10), slice(1, 9))
ENSEMBLE = {"members": 3, "tumour": [1, 4], "average": "probabilities", "regions": False}


@pytest.fixture
def calibrator():
    """A map with m(0) = 0.25."""
    score = np.linspace(0, 1, 4000, dtype=np.float32)
    first = score > 0.5
    return Calibrator(bins=10).fit(score, [first, first, first, np.ones_like(first)])


@pytest.fixture
def case(tmp_path):
    """A score that is 0 outside of its region, and at one voxel inside."""
    rng = np.random.default_rng(5)
    region = np.zeros(SHAPE, np.uint8, order="F")
    region[BOX] = 1
    score = np.asfortranarray(np.where(region, rng.random(SHAPE), 0).astype(np.float32))
    score[4, 4, 4] = 0
    folder = tmp_path / "scores"
    (folder / "rois").mkdir(parents=True)
    write_volume(folder / "A.nii.gz", score, np.eye(4))
    write_volume(folder / "rois" / "A.nii.gz", region, np.eye(4))
    raters = []
    for number in range(2):
        raters.append(tmp_path / f"rater_{number}.nii.gz")
        write_volume(raters[-1], (score > 0.4 + 0.2 * number).astype(np.uint8), np.eye(4))
    return Case("A", folder / "A.nii.gz", tuple(raters))


def record(case, calibrator=None, ensemble=ENSEMBLE):
    content = {"ensemble": ensemble, "calibrator": calibrator}
    case.score.with_name("prediction.json").write_text(json.dumps(content))


def arrays(case):
    score = np.asarray(read_volume(case.score).array)
    return score, read_volume(case.score.parent / "rois" / "A.nii.gz").array


def test_zeros_outside_the_region_stay_and_nothing_else(calibrator, case):
    score, region = arrays(case)
    calibrated = score.copy()
    calibrate_score(calibrator, calibrated, region)
    inside = region == 1
    assert (calibrated[~inside] == 0).all()
    assert np.array_equal(calibrated[inside], calibrator.transform(score[inside]))
    assert calibrated[4, 4, 4] == pytest.approx(0.25)  # a network was asked, and said 0
    # A cohort's own mask may be smaller than what the networks saw.
    smaller = np.zeros_like(region)
    calibrated = score.copy()
    calibrate_score(calibrator, calibrated, smaller)
    assert np.array_equal(calibrated, np.where(score == 0, 0, calibrator.transform(score)))
    calibrated = score.copy()
    calibrate_score(calibrator, calibrated)
    assert np.array_equal(calibrated, calibrator.transform(score))


def test_region_is_the_cohorts_or_the_predictions(case, tmp_path):
    assert region_of_case(case) is None  # rois/A.nii.gz may be anything without a record
    record(case)
    assert region_of_case(case) == case.score.parent / "rois" / "A.nii.gz"
    assert region_of_case(replace(case, name="B", score=case.score.with_name("B.nii.gz"))) is None
    assert region_of_case(replace(case, roi=tmp_path / "own")) == tmp_path / "own"


@pytest.mark.parametrize("ending", [".nii.gz", ".mha"])
def test_apply_and_evaluate_follow_the_rule(calibrator, case, tmp_path, ending):
    score, region = arrays(case)
    expected = score.copy()
    calibrate_score(calibrator, expected, region)
    volumes = {}
    for name, given in (("record", case), ("manifest", replace(case, roi=tmp_path / "roi.nii"))):
        record(case)
        write_volume(tmp_path / "roi.nii", region, np.eye(4))
        job = ApplyJob(calibrator, tmp_path / f"{name}{ending}", ending=ending)
        assert [o.failure for o in apply_cohort([given], job)] == [None]
        assert np.array_equal(read_volume(job.place(given)).array, expected)
        measured = EvaluateJob(calibrator=calibrator)
        found = evaluate_cohort([given], measured, tmp_path / f"{name}.store")
        volumes[name] = found.rows["A"]["predicted_volume"]
        applied = replace(given, score=job.place(given))
        plain = evaluate_cohort([applied], EvaluateJob(), tmp_path / f"{name}.applied")
        assert plain.rows == found.rows
    assert volumes["record"] == volumes["manifest"] == pytest.approx(expected.sum(dtype=float))
    # Without a region there is nothing to tell by: every voxel is mapped.
    case.score.with_name("prediction.json").unlink()
    found = evaluate_cohort([case], measured, tmp_path / "none.store")
    assert found.rows["A"]["predicted_volume"] > 1.5 * volumes["record"]


@pytest.mark.parametrize("ending", [".nii.gz", ".mha"])
def test_a_map_of_labels_is_no_region(calibrator, case, tmp_path, ending):
    _, region = arrays(case)
    other = tmp_path / "other.nii"
    given = replace(case, roi=other)
    write_volume(other, region * 255, np.eye(4))
    outcomes = []
    for name, of in (("own", case), ("other", given)):
        record(case)
        job = ApplyJob(calibrator, tmp_path / f"{name}{ending}", ending=ending)
        assert apply_cohort([of], job)[0].failure is None
        outcomes.append(read_volume(job.place(of)).array)
    np.testing.assert_array_equal(*outcomes)
    labels = region.copy()
    labels[4, 4, 7] = 2
    write_volume(other, labels, np.eye(4))
    job = ApplyJob(calibrator, tmp_path / f"wrong{ending}", ending=ending)
    message = "other.nii: voxel (4, 4, 7) is 2 but a voxel before it is 1"
    assert message in apply_cohort([given], job)[0].failure.message
    assert not job.place(given).exists()
    found = evaluate_cohort([given], EvaluateJob(calibrator=calibrator), tmp_path / "store")
    assert message in found.failures[0].message


def test_changed_region_is_calibrated_again(calibrator, case, tmp_path):
    record(case)
    job = ApplyJob(calibrator, tmp_path / "out")
    apply_cohort([case], job)
    assert apply_cohort([case], job)[0].state == "stored"
    everywhere = np.ones(SHAPE, np.uint8, order="F")
    write_volume(case.score.parent / "rois" / "A.nii.gz", everywhere, np.eye(4))
    assert apply_cohort([case], job)[0].state == "done"
    assert (read_volume(job.place(case)).array > 0).all()


def test_changed_region_is_measured_again(calibrator, case, tmp_path):
    """Which scores of 0 are lifted decides the volume."""
    record(case)
    job = EvaluateJob(calibrator=calibrator)

    def volume():
        return evaluate_cohort([case], job, tmp_path / "store").rows["A"]["predicted_volume"]

    before = volume()
    assert volume() == before
    everywhere = np.ones(SHAPE, np.uint8, order="F")
    write_volume(case.score.parent / "rois" / "A.nii.gz", everywhere, np.eye(4))
    assert volume() > 1.5 * before


def test_region_of_another_shape_is_an_error(calibrator, case, tmp_path):
    write_volume(tmp_path / "roi.nii", np.ones((14, 12, 9), np.uint8), np.eye(4))
    wrong = replace(case, roi=tmp_path / "roi.nii")
    for ending in (".nii", ".mha"):
        job = ApplyJob(calibrator, tmp_path / ending, ending=ending)
        failure = apply_cohort([wrong], job)[0].failure
        assert "roi.nii: shape (14, 12, 9) differs" in failure.message
    found = evaluate_cohort([wrong], EvaluateJob(calibrator=calibrator), tmp_path / "store")
    assert "roi.nii: shape (14, 12, 9) differs" in found.failures[0].message


def test_ensemble_is_known_from_the_record_or_the_classes(case, tmp_path):
    assert ensemble_of_score(case.score, (1, 4)) == {}
    probabilities = np.full((6, *SHAPE[::-1]), 1 / 6, np.float32)
    np.savez(tmp_path / "C.npz", probabilities=probabilities)
    assert ensemble_of_score(tmp_path / "C.npz", (1, 4)) == {"tumour": [1, 4]}
    for label, regions in ((1, False), ([1], False), ([1, 2], True)):
        dataset = tmp_path / "dataset.json"
        dataset.write_text(json.dumps({"labels": {"background": 0, "tumour": label}}))
        found = ensemble_of_score(tmp_path / "C.npz", (1, 4))
        assert found == {"tumour": [1, 4], "regions": regions}
    dataset.unlink()
    np.savez(tmp_path / "D.npz", score=np.zeros(SHAPE, np.float32))
    assert ensemble_of_score(tmp_path / "D.npz", (1, 4)) == {}
    record(case)
    assert ensemble_of_score(case.score, (2,)) == ENSEMBLE  # merged by the networks' own rule
    record(case, calibrator={"x": [0, 1], "y": [0, 1]})
    with pytest.raises(ValueError, match=r"A\.nii\.gz: is calibrated already"):
        ensemble_of_score(case.score)
    case.score.with_name("prediction.json").write_text("{}")
    with pytest.raises(ValueError, match=r"prediction\.json: ensemble must be an object"):
        ensemble_of_score(case.score)


def test_cases_that_contradict_each_other():
    assert join_ensembles([("a", {}), ("b", {"tumour": [1]}), ("c", {"tumour": [1]})]) == {
        "tumour": [1]
    }
    assert join_ensembles([("a", {})]) is None
    assert join_ensembles([("a", {})], {"average": "logits"}) == {"average": "logits"}
    with pytest.raises(ValueError, match=r"'b'.*tumour = \[1\], but case 'a' has tumour = \[2\]"):
        join_ensembles([("a", {"tumour": [2]}), ("b", {"tumour": [1]})])
    with pytest.raises(ValueError, match="'a'.*average = 'logits', but what was given has"):
        join_ensembles([("a", {"average": "logits"})], {"average": "probabilities"})


def test_fit_records_what_is_known_also_from_tallies(case, tmp_path):
    record(case)
    store = tmp_path / "store"
    job = TallyJob("all")
    fitted = fit_cohort([case], Calibrator(bins=5), job, store).calibrator
    assert fitted.provenance_["ensemble"] == ENSEMBLE
    options, tallies = read_tallies(store)
    assert options["ensemble"] == ENSEMBLE
    again = fit_tallies(Calibrator(bins=5, ensemble=options["ensemble"]), tallies, "all")
    assert again.provenance_ == fitted.provenance_
    with pytest.raises(ValueError, match="but what was given has average = 'logits'"):
        fit_cohort([case], Calibrator(ensemble={"average": "logits"}), job, store)
    # Told before any case is read.
    with pytest.raises(ValueError, match="but what was given has average = 'logits'"):
        fit_cohort([case], Calibrator(ensemble={"average": "logits"}), job, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_calibrated_scores_are_not_fitted(case, tmp_path):
    record(case, calibrator={"x": [0, 1], "y": [0, 1]})
    with pytest.raises(ValueError, match="predict without -m into another folder"):
        fit_cohort([case], Calibrator(bins=5), TallyJob("all"), tmp_path / "store")


@pytest.mark.parametrize("ending", [".nii.gz", ".mha"])
def test_a_map_is_applied_to_scores_like_those_it_was_fitted_on(case, tmp_path, ending):
    if ending == ".mha":
        pytest.importorskip("SimpleITK")
    record(case)
    fitted = fit_cohort([case], Calibrator(bins=5), TallyJob("all"), tmp_path / "fit").calibrator
    job = ApplyJob(fitted, tmp_path / f"out{ending}", ending=ending)
    measured = EvaluateJob(calibrator=fitted)

    def failures():
        found = evaluate_cohort([case], measured, tmp_path / f"evaluated{ending}")
        of_apply = apply_cohort([case], job, existing="overwrite")[0].failure
        of_evaluate = found.failures[0] if found.failures else None
        return [failure and failure.message for failure in (of_apply, of_evaluate)]

    record(case, ensemble={**ENSEMBLE, "average": "logits"})
    for message in failures():
        assert (
            "A.nii.gz: the calibrator was fitted on scores of an ensemble with average" in message
        )
    record(case, calibrator={"x": [0, 1], "y": [0, 1]})
    for message in failures():
        assert "A.nii.gz: is calibrated already" in message
    assert not evaluate_cohort([case], EvaluateJob(), tmp_path / f"plain{ending}").failures
    record(case)
    assert failures() == [None, None]
    # Another class of an archive is another score.
    probabilities = np.full((6, *SHAPE[::-1]), 1 / 6, np.float32)
    np.savez(tmp_path / "C.npz", probabilities=probabilities)
    write_volume(tmp_path / "C.nii.gz", np.zeros(SHAPE, np.uint8), np.eye(4))
    other = replace(job, tumour=(2,), folder=tmp_path / f"classes{ending}")
    failure = apply_cohort([Case("C", tmp_path / "C.npz", ())], other)[0].failure
    assert (
        "C.npz: the calibrator was fitted on scores of an ensemble with tumour" in failure.message
    )
