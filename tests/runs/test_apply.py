from __future__ import annotations

import contextlib
import copy
import dataclasses
import errno
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from folders import content

from twintrack import CalibrationMap, Calibrator, MapBand, load_calibrator
from twintrack.cohort import Case, find_scores, read_manifest
from twintrack.runs import apply as runs
from twintrack.runs.apply import ApplyJob, apply_cohort
from twintrack.runs.engine import Settings
from twintrack.runs.staging import StoreError
from twintrack.volumes import read_score, read_volume, write_volume


@pytest.fixture(scope="module")
def calibrator():
    rng = np.random.default_rng(0)
    score = rng.random((30, 30, 30), np.float32)
    return Calibrator(bins=20).fit(score, [rng.random(score.shape) < score**2 for _ in range(3)])


@pytest.fixture
def job(calibrator, tmp_path):
    return ApplyJob(calibrator, tmp_path / "out")


@pytest.fixture(scope="module")
def sure():
    """A calibrator of five patients with a band."""
    rng = np.random.default_rng(1)
    made = Calibrator(bins=20)
    for patient in range(5):
        score = rng.random(3000, np.float32)
        marks = [rng.random(score.size) < score ** (1 + patient / 3) for _ in range(3)]
        made.partial_fit(score, marks, case=str(patient))
    return made.keep_band()


@pytest.fixture
def banded(sure, tmp_path):
    return ApplyJob(sure, tmp_path / "out", band=True)


def test_volume_holds_the_calibrated_score_in_its_place(cases, job, calibrator):
    outcomes = apply_cohort(cases, job)
    assert [outcome.case for outcome in outcomes] == [case.name for case in cases]
    for case in cases:
        written, source = nib.load(job.place(case)), nib.load(case.score)
        assert np.array_equal(written.affine, source.affine)
        for field in ("qform_code", "sform_code", "xyzt_units"):
            assert written.header[field] == source.header[field]
        expected = calibrator.transform(read_score(case.score).array)
        found = np.asarray(written.dataobj)
        assert found.dtype == np.float32
        assert np.array_equal(found, expected)


@pytest.mark.parametrize(("dtype", "steps"), [("uint8", 255), ("uint16", 65535)])
def test_integers_keep_to_the_stated_error(cases, calibrator, tmp_path, dtype, steps):
    job = ApplyJob(calibrator, tmp_path, dtype, ".nii")
    apply_cohort(cases[:1], job)
    written = nib.load(job.place(cases[0]))
    assert written.header.get_data_dtype() == np.dtype(dtype)
    expected = calibrator.transform(read_score(cases[0].score).array)
    assert np.max(np.abs(written.get_fdata() - expected)) <= 0.5 / steps + 1e-6


def test_scores_are_left_as_they_are(cohort, calibrator, tmp_path):
    """Mapped files are calibrated in place in memory; the file must not notice."""
    score = read_score(next((cohort / "predictions").iterdir()))
    path = tmp_path / "a.nii"
    write_volume(path, score.array, score)
    before = path.read_bytes()
    apply_cohort([Case("a", path, ())], ApplyJob(calibrator, tmp_path / "out"))
    assert path.read_bytes() == before


def test_finished_volumes_are_not_made_again(cases, job):
    apply_cohort(cases, job)
    before = {path: path.stat().st_mtime_ns for path in job.folder.glob("*.nii.gz")}
    assert {outcome.state for outcome in apply_cohort(cases, job)} == {"stored"}
    job.place(cases[2]).unlink()
    states = {outcome.case: outcome.state for outcome in apply_cohort(cases, job)}
    assert [case for case, state in states.items() if state == "done"] == [cases[2].name]
    del before[job.place(cases[2])]
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


def test_interrupted_run_goes_on_and_ends_the_same(cases, job, calibrator, tmp_path):
    """Also when it stopped between the record of a volume and the volume: both orders of events."""
    apply_cohort(cases, job)
    whole = content(job.folder, "*.nii*")
    for lost in ("volume", "record"):
        folder = tmp_path / lost
        again = ApplyJob(calibrator, folder)
        apply_cohort(cases[:3], again)
        if lost == "volume":
            again.place(cases[1]).unlink()
            apply_cohort(cases, again)
        else:
            next(folder.glob(f"store/*/cases/{cases[1].name}.json")).unlink()
            # Such a volume cannot be told from somebody else's.
            with pytest.raises(ValueError, match="is there already"):
                apply_cohort(cases, again)
            apply_cohort(cases, again, existing="overwrite")
        assert content(folder, "*.nii*") == whole


def test_volumes_of_others_are_not_touched_unasked(cases, job):
    job.folder.mkdir()
    foreign = job.place(cases[1])
    foreign.write_bytes(b"not ours")
    with pytest.raises(ValueError, match=rf"{cases[1].name}\.nii\.gz: is there already, and was"):
        apply_cohort(cases, job)
    assert content(job.folder, "*.nii*") == {foreign.name: b"not ours"}
    # Kept it would lie beside a record that says that it is calibrated.
    with pytest.raises(ValueError, match="is there already") as refused:
        apply_cohort(cases, job, existing="keep")
    assert "--continue_prediction" not in str(refused.value)
    assert content(job.folder, "*") == {foreign.name: b"not ours"}
    apply_cohort(cases, job, existing="overwrite")
    assert foreign.read_bytes() != b"not ours"


def test_volumes_that_nobody_knows_never_come_to_lie_beside_calibrated_ones(cases, job):
    """A CT, say, which the folder's record would call a calibrated score."""
    job.folder.mkdir()
    (job.folder / "ct.nii.gz").write_bytes(b"not ours")
    for existing in ("refuse", "keep", "overwrite"):
        with pytest.raises(ValueError, match=r"ct\.nii\.gz: nobody knows what made it"):
            apply_cohort(cases, job, existing=existing)
    assert content(job.folder) == {"ct.nii.gz": b"not ours"}
    (job.folder / "ct.nii.gz").unlink()
    apply_cohort(cases[:2], job)
    (job.folder / "prediction.json").unlink()  # the store still knows its volumes
    assert {outcome.state for outcome in apply_cohort(cases[1:3], job)} == {"done", "stored"}
    assert sorted(content(job.folder, "*.nii*")) == [job.place(case).name for case in cases[:3]]


def test_volumes_of_this_calibrator_are_kept_however_they_are_stored(cases, job):
    apply_cohort(cases[:2], job)
    before = content(job.folder, "*.nii*")
    small = dataclasses.replace(job, dtype="uint8")
    with pytest.raises(ValueError, match="keep what is there with --continue_prediction"):
        apply_cohort(cases[:3], small)
    assert [o.case for o in apply_cohort(cases[:3], small, existing="keep")] == [cases[2].name]
    assert content(job.folder, "*.nii*") == before | content(job.folder, f"{cases[2].name}.nii*")


@pytest.mark.parametrize(
    "changed",
    [
        {"dtype": "uint16"},
        {"ending": ".nii"},
        {"tumour": (2,)},
        {"tumour": (1, 2)},
        {"threshold": 0.4},
        {"threshold": None},
        {"band": False},
    ],
)
def test_everything_that_decides_a_volume_is_in_its_options(banded, changed):
    """Else volumes that were made in another way would pass for those asked for."""
    job = dataclasses.replace(banded, threshold=0.5)
    assert dataclasses.replace(job, **changed).options != job.options
    fields = {field.name for field in dataclasses.fields(job)}
    assert fields - {"folder"} <= set(job.options)


def test_another_calibrator_is_another_work(cases, job, tmp_path):
    apply_cohort(cases, job)
    identity = Calibrator(target="none").fit(
        np.zeros((2, 2, 2), np.float32), np.zeros((1, 2, 2, 2))
    )
    other = ApplyJob(identity, job.folder)
    before = content(job.folder)
    # Whatever the cases and the format: the folder's record would speak of all its volumes.
    for changed in ({}, {"ending": ".nii"}, {"dtype": "uint8"}):
        for existing in ("refuse", "keep"):
            for some in (cases, [dataclasses.replace(cases[0], name="new")]):
                with pytest.raises(ValueError, match=r"prediction\.json: .* by another map"):
                    apply_cohort(some, dataclasses.replace(other, **changed), existing=existing)
    assert content(job.folder) == before
    outcomes = apply_cohort(cases, other, existing="overwrite")
    assert {outcome.state for outcome in outcomes} == {"done"}
    # The first calibrator's volumes are gone, so its records must not count any more.
    with pytest.raises(ValueError, match="by another map"):
        apply_cohort(cases, job)


def test_volumes_of_another_calibrator_go_before_the_first_of_this_one(cases, job, monkeypatch):
    """All of them: those of other cases too, for the record speaks of all volumes of a folder."""
    apply_cohort(cases[:3], job)
    identity = Calibrator(target="none").fit(np.zeros(1), [np.zeros(1)])
    other = ApplyJob(identity, job.folder, ending=".nii")
    monkeypatch.setattr(runs, "run_cases", lambda *_: ([], None))  # killed before the first
    apply_cohort(cases[2:4], other, existing="overwrite")
    assert content(job.folder, "*.nii*") == {}
    monkeypatch.undo()
    apply_cohort(cases[2:4], other)
    assert sorted(content(job.folder, "*.nii*")) == [f"{case.name}.nii" for case in cases[2:4]]


def test_record_of_the_same_calibrator_stays_as_it_is(cases, job, calibrator):
    """Else all that was made from the volumes would be made anew with every version."""
    apply_cohort(cases[:1], job)
    record = job.folder / "prediction.json"
    text = json.dumps({**json.loads(record.read_text()), "twintrack": "0.0.1"})
    record.write_text(text)
    apply_cohort(cases[:2], job)
    assert record.read_text() == text


def test_calibrator_from_a_file_is_the_same_calibrator(cases, job, calibrator, tmp_path):
    apply_cohort(cases, job)
    calibrator.save(tmp_path / "c.json")
    again = ApplyJob(load_calibrator(tmp_path / "c.json"), job.folder)
    assert {outcome.state for outcome in apply_cohort(cases, again)} == {"stored"}


def test_changed_score_is_calibrated_again(cohort, calibrator, tmp_path):
    cases = read_manifest(cohort / "manifest.csv")
    job = ApplyJob(calibrator, tmp_path / "out")
    apply_cohort(cases, job)
    Path(cases[0].score).write_bytes(Path(cases[1].score).read_bytes())
    apply_cohort(cases, job)
    assert job.place(cases[0]).read_bytes() == job.place(cases[1]).read_bytes()


def test_calibrated_volumes_are_known_as_such(cases, job, calibrator, tmp_path):
    apply_cohort(cases[:1], job)
    again = [dataclasses.replace(cases[0], score=job.place(cases[0]))]
    outcome = apply_cohort(again, dataclasses.replace(job, folder=tmp_path / "twice"))[0]
    assert "is calibrated already" in outcome.failure.message
    # Another calibrator's volumes may take their place; those of `twintrack predict` are another's.
    other = Calibrator(bins=2).fit(np.array([0.1, 0.9], np.float32), [np.array([0, 1])])
    apply_cohort(cases[:1], dataclasses.replace(job, calibrator=other), existing="overwrite")
    record = json.loads((job.folder / "prediction.json").read_text())
    assert record["calibrator"]["x"] == other.map_.x.tolist()
    (job.folder / "prediction.json").write_text(json.dumps({**record, "members": []}))
    with pytest.raises(ValueError, match=r"prediction.json: is of predictions by networks"):
        apply_cohort(cases[1:2], job, existing="overwrite")
    assert not job.place(cases[1]).exists()


def test_scores_are_never_overwritten(cohort, calibrator):
    cases = read_manifest(cohort / "manifest.csv")
    before = content(cohort / "predictions", "*.nii*")
    with pytest.raises(ValueError, match="would be overwritten by its calibrated score"):
        apply_cohort(cases, ApplyJob(calibrator, cohort / "predictions"), existing="overwrite")
    assert content(cohort / "predictions", "*.nii*") == before
    assert not (cohort / "predictions" / "store").exists()


def test_scores_are_not_marked_as_calibrated(cohort, calibrator):
    """Another ending overwrites nothing, but the folder's record would speak of the scores too."""
    cases = read_manifest(cohort / "manifest.csv")
    before = content(cohort / "predictions")
    with pytest.raises(ValueError, match="is the folder of the scores, which would count as"):
        apply_cohort(cases, ApplyJob(calibrator, cohort / "predictions", ending=".mha"))
    assert content(cohort / "predictions") == before


def test_nnunet_probabilities_take_their_geometry_from_beside(cohort, calibrator, tmp_path):
    score = read_score(next((cohort / "predictions").iterdir()))
    tumour = score.array.T
    np.savez_compressed(tmp_path / "A.npz", probabilities=np.stack([1 - tumour, tumour]))
    case = Case("A", tmp_path / "A.npz", ())
    job = ApplyJob(calibrator, tmp_path / "out")
    (outcome,) = apply_cohort([case], job)
    assert outcome.failure.step == "read"
    assert outcome.failure.message.startswith("A.npz: has no geometry to keep")
    write_volume(tmp_path / "A.nii.gz", (score.array > 0.5).view(np.uint8), score)
    (outcome,) = apply_cohort([case], job)
    assert outcome.state == "done"
    assert np.allclose(nib.load(job.place(case)).affine, score.affine)
    assert set(outcome.entry.inputs) == {"score", "score.nii.gz"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int8"}, "dtype is 'int8'; it is one of float32"),
        ({"ending": ".png"}, "ending is '.png'"),
        ({"dtype": "uint8", "ending": ".mha"}, "no scale factor"),
    ],
)
def test_unknown_formats_are_refused_at_once(calibrator, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        ApplyJob(calibrator, tmp_path, **options)


def test_broken_score_is_one_failure(cohort, calibrator, tmp_path):
    cases = read_manifest(cohort / "manifest.csv")
    score = read_score(cases[2].score)
    bad = score.array.copy()
    bad[3, 4, 5] = np.nan
    write_volume(cases[2].score, bad, score)
    outcomes = apply_cohort(cases, ApplyJob(calibrator, tmp_path / "out"))
    assert [outcome.state for outcome in outcomes].count("failed") == 1
    failure = outcomes[2].failure
    assert failure.file == "score"
    assert failure.message.startswith(f"{cases[2].name}.nii.gz: voxel (3, 4, 5) is nan")
    assert not (tmp_path / "out" / f"{cases[2].name}.nii.gz").exists()


def test_score_that_cannot_be_read_to_its_end_is_one_failure(cases, job, monkeypatch):
    """It is read while the volume is written, but is not the fault of the disk written to."""
    from twintrack.volumes import nifti

    def failing(pieces):
        yield next(pieces)[:400]  # the header and a few voxels
        raise OSError(errno.EIO, "Input/output error")

    def gunzip(file, whole=nifti.gunzip):
        pieces = whole(file)
        return failing(pieces) if cases[1].score.name in file.name else pieces

    monkeypatch.setattr(nifti, "gunzip", gunzip)
    outcomes = apply_cohort(cases, job)
    assert [outcome.state == "failed" for outcome in outcomes] == [k == 1 for k in range(6)]
    assert outcomes[1].failure.message == f"{cases[1].score.name}: Input/output error"


def test_disk_that_fills_up_leaves_whole_volumes_only(cases, job, monkeypatch):
    write, calls = runs.slab_writer, []

    def full(path, *rest, **source):
        calls.append(path)
        if len(calls) == 3:
            Path(path).write_bytes(b"half a volume")
            raise OSError(errno.ENOSPC, "not written (No space left on device)", str(path))
        return write(path, *rest, **source)

    monkeypatch.setattr(runs, "slab_writer", full)
    with pytest.raises(StoreError, match="No space left"):
        apply_cohort(cases, job, settings=Settings(workers=1))
    assert sorted(content(job.folder, "*.nii*")) == [job.place(case).name for case in cases[:2]]
    assert not list(job.folder.glob("store/*/staging-*"))
    monkeypatch.undo()
    states = [outcome.state for outcome in apply_cohort(cases, job)]
    assert states.count("stored") == 2
    assert all(nib.load(job.place(case)).get_fdata().max() <= 1 for case in cases)


@pytest.mark.parametrize("ending", [".nii.gz", ".mha"])
def test_region_of_the_whole_ct_fits_a_score_that_is_a_crop(tmp_path, ending):
    pytest.importorskip("SimpleITK")
    rng = np.random.default_rng(5)
    affine = np.diag([-0.8, -0.8, 2.0, 1.0])
    box = (slice(2, 9), slice(1, 8), slice(3, 10))
    mask = rng.integers(0, 2, (11, 10, 12)).astype(np.uint8)
    score = rng.integers(0, 3, (7, 7, 7)).astype(np.float32) / 2
    placed = affine.copy()
    placed[:3, 3] = affine[:3, :3] @ [side.start for side in box]
    write_volume(tmp_path / "roi.nii.gz", mask, affine)
    write_volume(tmp_path / "A.nii.gz", score, placed)
    calibrator = Calibrator(bins=3).fit(
        np.array([0, 0.5, 1], np.float32).repeat(4), [np.arange(12) % 4 > 1]
    )
    job = ApplyJob(calibrator, tmp_path / "out", ending=ending)
    (outcome,) = apply_cohort(
        [Case("A", tmp_path / "A.nii.gz", (), roi=tmp_path / "roi.nii.gz")], job
    )
    assert outcome.failure is None
    written = read_score(tmp_path / "out" / f"A{ending}")
    expected = np.where((score == 0) & (mask[box] == 0), 0, calibrator.transform(score))
    assert calibrator.transform(score).min() > 0
    np.testing.assert_array_equal(written.array, expected)
    np.testing.assert_allclose(written.affine, placed, atol=1e-5)


@pytest.mark.parametrize(("dtype", "step"), [("float32", 0), ("uint8", 1 / 255)])
def test_limits_are_those_of_the_band_at_the_scores(cases, banded, sure, dtype, step):
    job = dataclasses.replace(banded, dtype=dtype)
    apply_cohort(cases[:2], job)
    for case in cases[:2]:
        score = read_score(case.score).array
        band = sure.band(np.unique(score).astype(np.float64))
        at = np.searchsorted(band.score, score)
        found = {
            role: np.asarray(nib.load(place).get_fdata())
            for role, place in job.places(case).items()
        }
        assert set(found) == {"volume", "low", "high"}
        # Between the scores that are kept with the map a limit is a straight line.
        for role, limit in (("low", band.low), ("high", band.high)):
            np.testing.assert_allclose(found[role], limit[at], atol=step / 2 + 1e-3)
            kept = getattr(sure.band_, "lower_map" if role == "low" else "upper_map")
            np.testing.assert_allclose(found[role], kept(score), atol=step / 2 + 1e-6)
        assert np.all((found["low"] <= found["volume"]) & (found["volume"] <= found["high"]))
        assert np.mean(found["low"] < found["high"]) > 0.1
        source = nib.load(case.score)
        for place in job.places(case).values():
            assert np.array_equal(nib.load(place).affine, source.affine)


def test_limits_hold_the_map_where_the_band_is_too_coarse(tmp_path):
    """A step of the map between two scores of a band."""
    x, y = [0, 0.501, 0.502, 1], [0.1, 0.1, 0.9, 0.9]
    calibrator = _of_knots(x, y)
    write_volume(tmp_path / "A.nii.gz", np.linspace(0.45, 0.55, 60).reshape(3, 4, 5), np.eye(4))
    job = ApplyJob(calibrator, tmp_path / "out", "float32", band=True)
    case = Case("A", tmp_path / "A.nii.gz", ())
    apply_cohort([case], job)
    low, value, high = (
        read_score(job.places(case)[role]).array for role in ("low", "volume", "high")
    )
    assert np.all((low <= value) & (value <= high))
    assert np.any(calibrator.band_.lower_map(read_score(case.score).array) > value)


def test_outside_of_the_region_of_interest_limits_are_0_too(banded, tmp_path):
    score = np.zeros((4, 5, 6), np.float32)
    score[:2] = 0.4
    roi = np.zeros(score.shape, np.uint8)
    roi[1:3] = 1
    write_volume(tmp_path / "A.nii.gz", score, np.eye(4))
    write_volume(tmp_path / "roi.nii.gz", roi, np.eye(4))
    case = Case("A", tmp_path / "A.nii.gz", (), roi=tmp_path / "roi.nii.gz")
    apply_cohort([case], banded)
    for place in banded.places(case).values():
        found = read_score(place).array
        assert np.all(found[3] == 0)
    assert np.all(read_score(banded.places(case)["high"]).array[:3] > 0)


def test_a_band_that_is_not_there_is_asked_for(calibrator, tmp_path):
    with pytest.raises(ValueError, match="twintrack fit --band"):
        ApplyJob(calibrator, tmp_path, band=True)


def test_limits_are_resumed_and_are_of_one_band(cases, banded, sure):
    apply_cohort(cases[:3], banded)
    whole = content(banded.folder, "**/*.nii*")
    assert {outcome.state for outcome in apply_cohort(cases[:3], banded)} == {"stored"}
    banded.places(cases[1])["high"].unlink()
    states = [outcome.state for outcome in apply_cohort(cases[:3], banded)]
    assert states == ["stored", "done", "stored"]
    assert content(banded.folder, "**/*.nii*") == whole
    other = copy.copy(sure).keep_band(sure.band(level=0.5))
    narrow = dataclasses.replace(banded, calibrator=other)
    for existing in ("refuse", "keep"):
        with pytest.raises(ValueError, match=r"low/prediction\.json: the limits .* another band"):
            apply_cohort(cases[2:4], narrow, existing=existing)
    apply_cohort(cases[2:4], narrow, existing="overwrite")
    assert sorted(content(banded.folder, "low/*.nii*")) == sorted(
        f"low/{case.name}.nii.gz" for case in cases[2:4]
    )
    # The map is the same, and so are its volumes, with or without limits.
    plain = dataclasses.replace(narrow, band=False)
    kept = apply_cohort(cases[:4], plain, existing="keep")
    assert [outcome.case for outcome in kept] == [case.name for case in cases[:2]]


def test_limits_count_as_calibrated(cases, banded, tmp_path):
    apply_cohort(cases[:1], banded)
    again = dataclasses.replace(cases[0], score=banded.places(cases[0])["low"])
    (outcome,) = apply_cohort([again], dataclasses.replace(banded, folder=tmp_path / "twice"))
    assert "is calibrated already" in outcome.failure.message


def _of_knots(x, y):
    fitted = CalibrationMap(x, y)
    calibrator = Calibrator()
    said = {"raters": 2, "cases": 2, "voxels": 9, "target": "mhr", "ensemble": None}
    calibrator.restore(fitted, said)
    at = np.array([0, 0.5, 0.51, 1])
    value = fitted(at)
    calibrator.keep_band(MapBand(at, value, value, value, 0.95, "pointwise", 2, 2.0))
    return calibrator


def masks_of(job, cases):
    return {
        case.name: np.asarray(nib.load(job.places(case)["mask"]).dataobj)
        for case in cases
        if job.places(case)["mask"].exists()
    }


@pytest.mark.parametrize(
    ("dtype", "ending"),
    [("float32", ".nii.gz"), ("uint8", ".nii"), ("uint16", ".nii.gz"), ("float32", ".mha")],
)
def test_masks_are_of_the_score_before_it_is_rounded(cases, calibrator, tmp_path, dtype, ending):
    if ending == ".mha":
        pytest.importorskip("SimpleITK")
    job = ApplyJob(calibrator, tmp_path / "out", dtype, ending, threshold=0.3001)
    plain = dataclasses.replace(job, folder=tmp_path / "plain", threshold=None)
    assert {o.state for o in apply_cohort(cases[:2], job)} == {"done"}
    apply_cohort(cases[:2], plain)
    for case in cases[:2]:
        places = job.places(case)
        assert places["mask"] == tmp_path / "out" / "masks" / f"{case.name}{ending}"
        assert places["volume"].read_bytes() == plain.place(case).read_bytes()
        mask, score = read_volume(places["mask"]), read_score(case.score)
        assert mask.array.dtype == np.uint8
        assert np.array_equal(mask.array, calibrator.transform(score.array) > 0.3001)
        assert 0 < mask.array.mean() < 1
        assert np.allclose(mask.affine, score.affine)
    assert json.loads((job.folder / "prediction.json").read_text())["threshold"] == 0.3001
    assert "threshold" not in json.loads((plain.folder / "prediction.json").read_text())
    assert list(find_scores(job.folder)) == [case.name for case in cases[:2]]


def test_masks_are_made_once_and_again_where_they_are_lost(cases, calibrator, tmp_path):
    job = ApplyJob(calibrator, tmp_path, threshold=0.4)
    apply_cohort(cases, job)
    whole = content(tmp_path, "**/*.nii.gz")
    assert {o.state for o in apply_cohort(cases, job)} == {"stored"}
    job.places(cases[1])["mask"].unlink()
    job.places(cases[2])["mask"].write_bytes(b"cut")
    with pytest.raises(ValueError, match=rf"masks/{cases[2].name}.nii.gz: is there already"):
        apply_cohort(cases, job)
    job.places(cases[2])["mask"].unlink()
    states = [outcome.state for outcome in apply_cohort(cases, job)]
    assert [k for k, state in enumerate(states) if state == "done"] == [1, 2]
    assert content(tmp_path, "**/*.nii.gz") == whole


def test_masks_of_another_threshold_are_another_work(cases, calibrator, tmp_path):
    job = ApplyJob(calibrator, tmp_path, threshold=0.4)
    apply_cohort(cases[:3], job)
    other = dataclasses.replace(job, threshold=0.6)
    for existing in ("refuse", "keep"):
        for some in (cases[:3], cases[3:4]):
            with pytest.raises(ValueError, match=r"json: the masks .* with another threshold"):
                apply_cohort(some, other, existing=existing)
    apply_cohort(cases[2:4], other, existing="overwrite")
    # Those of other cases are gone, for the folder's record speaks of all masks.
    assert sorted(masks_of(other, cases)) == [case.name for case in cases[2:4]]
    assert json.loads((tmp_path / "prediction.json").read_text())["threshold"] == 0.6
    (tmp_path / "masks" / "stranger.nii.gz").write_bytes(b"not ours")
    with pytest.raises(ValueError, match=r"masks/stranger\.nii\.gz: nobody knows what made it"):
        apply_cohort(cases[2:4], job, existing="overwrite")


def test_masks_of_another_map_go_with_its_volumes(cases, job, calibrator):
    apply_cohort(cases[:2], dataclasses.replace(job, threshold=0.4))
    identity = Calibrator(target="none").fit(np.zeros(1), [np.zeros(1)])
    other = dataclasses.replace(job, calibrator=identity)
    apply_cohort(cases[:1], other, existing="overwrite")
    assert list(content(job.folder, "**/*.nii.gz")) == [f"{cases[0].name}.nii.gz"]
    assert "threshold" not in json.loads((job.folder / "prediction.json").read_text())


def test_masks_come_beside_volumes_that_are_there(cases, job):
    apply_cohort(cases[:2], job)
    record = job.folder / "prediction.json"
    masked = dataclasses.replace(job, threshold=0.4)
    with pytest.raises(ValueError, match="keep what is there with --continue_prediction"):
        apply_cohort(cases[:3], masked)
    assert len(apply_cohort(cases[:3], masked, existing="keep")) == 3
    assert len(masks_of(masked, cases)) == 3
    with_masks = record.read_bytes()
    assert json.loads(with_masks)["threshold"] == 0.4
    # The masks stay what they are when volumes are written without.
    apply_cohort(cases[3:4], job)
    assert record.read_bytes() == with_masks
    assert len(masks_of(masked, cases)) == 3


def test_a_mask_that_cannot_be_written_leaves_no_volume(cases, job, monkeypatch):
    job = dataclasses.replace(job, threshold=0.4)
    write = runs.slab_writer

    @contextlib.contextmanager
    def full(path, *rest, **source):
        with write(path, *rest, **source) as put:
            yield put
        if path.name.startswith("mask_"):
            raise OSError(errno.ENOSPC, "not written (No space left on device)", str(path))

    monkeypatch.setattr(runs, "slab_writer", full)
    with pytest.raises(StoreError, match="No space left"):
        apply_cohort(cases[:1], job)
    assert content(job.folder, "**/*.nii*") == {}


def test_outside_of_the_region_the_mask_is_0(calibrator, tmp_path):
    """Where the map makes more than the threshold of a score of 0."""
    lifted = Calibrator(floor=0.6).fit(np.float32([0.1, 0.9]), [np.array([0, 1])])
    score = np.zeros((4, 5, 6), np.float32)
    score[2] = 0.9
    region = np.zeros(score.shape, np.uint8)
    region[1:3] = 1
    for name, array in (("score", score), ("roi", region)):
        write_volume(tmp_path / f"{name}.nii.gz", array, np.eye(4))
    case = Case("a", tmp_path / "score.nii.gz", (), roi=tmp_path / "roi.nii.gz")
    job = ApplyJob(lifted, tmp_path / "out", threshold=0.5)
    apply_cohort([case], job)
    assert np.array_equal(masks_of(job, [case])["a"], region)
    # Above means above: here the map makes the threshold itself of what is 0 in the region.
    job = dataclasses.replace(job, folder=tmp_path / "at", threshold=lifted.floor_)
    apply_cohort([case], job)
    assert np.array_equal(masks_of(job, [case])["a"], score > 0)
