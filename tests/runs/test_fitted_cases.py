"""How a run knows scores: by stamps, and before the work by as little reading as will do."""

from __future__ import annotations

import pytest

from twintrack import Calibrator
from twintrack.calibration.fitted_on import FittedCase
from twintrack.cohort import Case
from twintrack.runs import fitted_cases
from twintrack.runs.evaluate import EvaluateJob, evaluate_cohort, fitted_among
from twintrack.runs.fit import TallyJob, fit_cohort, fit_tallies, read_tallies
from twintrack.runs.fitted_cases import find_among, score_digest
from twintrack.runs.leave_one_out import leave_one_out
from twintrack.runs.stamps import FileStamp, read_stamp
from twintrack.runs.store import Store


@pytest.fixture
def read(monkeypatch):
    """Names of the files that are read to know them."""
    names = []

    def reading(path):
        names.append(path.name)
        return read_stamp(path)

    monkeypatch.setattr(fitted_cases, "read_stamp", reading)
    return names


@pytest.mark.parametrize("name", ["A.mhd", "A.NHDR"])
def test_a_score_in_several_files_is_known_by_all_of_them(name):
    header, voxels = FileStamp(name, 200, 1, "aa"), FileStamp("A.raw", 900, 2, "bb")
    assert score_digest({"score": voxels, "rater_1": header, "vessels": header}) == "bb-900"
    both = {"rater_1": header, "score.raw": voxels, "score": header}
    assert score_digest(both) == "aa-200+bb-900"
    # What only tells of a score may come and go.
    told = FileStamp("dataset.json", 30, 3, "cc")
    assert score_digest({**both, "score.dataset.json": told}) == "aa-200+bb-900"
    beside = FileStamp("A.nii.gz", 70, 3, "dd")
    assert score_digest({"score": FileStamp("A.npz", 9, 1, "ee"), "score.nii.gz": beside}) == "ee-9"
    # The headers of two scores can be equal: without the voxels nothing is known.
    assert score_digest({"score": header}) is None
    assert score_digest({"rater_1": voxels}) is None


def test_only_scores_of_a_size_that_is_known_are_read(cases, tmp_path, read):
    calibrator = Calibrator(bins=20)
    fit_cohort(cases[:2], calibrator, TallyJob("box"), tmp_path / "tallies")
    sizes = [case.score.stat().st_size for case in cases]
    alike = [case.score.name for case, size in zip(cases, sizes, strict=True) if size in sizes[:2]]
    assert 2 <= len(alike) < 6
    job = EvaluateJob(calibrator=calibrator)
    expected = {"same_case": (cases[0].name, cases[1].name)}
    assert fitted_among(cases, job, tmp_path / "store") == expected
    assert read == alike
    # Finished cases have been stamped: a run that goes on reads nothing.
    found = evaluate_cohort(cases, job, tmp_path / "store")
    assert found.fitted_on == expected
    del read[:]
    assert fitted_among(cases, job, tmp_path / "store") == expected
    assert read == []


def test_what_cannot_be_read_is_left_to_the_run(tmp_path):
    job = EvaluateJob()
    gone = Case("A", tmp_path / "none.nii.gz", ())
    store = Store(tmp_path, job.kind, {})
    fitted_on = [FittedCase.named("A", "aa-12")]
    assert find_among([gone], fitted_on, job.files, store) == {"same_name": ("A",)}


def test_leaving_one_out_records_the_others_alone(cases, tmp_path):
    calibrator = Calibrator(bins=20)
    fit_cohort(cases, calibrator, TallyJob("box"), tmp_path)
    assert calibrator.fitted_on_ is not None
    by_name = {known.case: known for known in calibrator.fitted_on_}
    assert len(by_name) == 6

    _, tallies = read_tallies(tmp_path)
    whole = fit_tallies(Calibrator(bins=20), tallies, "box")
    assert whole.fitted_on_ is not None
    everyone = set(whole.fitted_on_)
    assert everyone == set(by_name.values())
    for case, fitted in leave_one_out(whole, tallies, "box"):
        assert fitted.fitted_on_ is not None
        (left_out,) = everyone.difference(fitted.fitted_on_)
        assert left_out.case == FittedCase.named(case).case
        assert len(fitted.fitted_on_) == 5
