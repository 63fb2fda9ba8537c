"""Every file that decides a result is known to the job: else an old result would stand.

Whoever teaches a reader to open one more file finds it missing here, whatever the job.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from twintrack import Calibrator
from twintrack.cohort import Case
from twintrack.cohort.score_records import region_of_case
from twintrack.runs.apply import ApplyJob
from twintrack.runs.engine import plan_cases, process_case
from twintrack.runs.evaluate import EvaluateJob
from twintrack.runs.fit import TallyJob
from twintrack.runs.inputs import case_files, with_files_read
from twintrack.runs.memory import MemoryBudget
from twintrack.runs.store import Store
from twintrack.volumes import write_volume

SHAPE = (12, 11, 10)
AFFINE = np.diag([-0.8, -0.8, 2.0, 1.0])
LABELS = {"labels": {"background": 0, "first": 1, "second": 2}}


def arrays():
    rng = np.random.default_rng(7)
    score = rng.random(SHAPE).astype(np.float32)
    raters = [(score > bound).astype(np.uint8) for bound in (0.4, 0.7)]
    vessels = rng.integers(0, 6, SHAPE).astype(np.uint8)
    return score, raters, vessels, np.ones(SHAPE, np.uint8)


def write_description(folder):
    folder.mkdir(parents=True)
    (folder / "dataset.json").write_text(json.dumps(LABELS))
    (folder / "plans.json").write_text(json.dumps({"image_reader_writer": "SimpleITKIO"}))


def nifti(folder, score_file=None):
    """NIfTI throughout, beside the record of twintrack predict and its regions of interest."""
    score, raters, vessels, roi = arrays()
    for part in ("scores/rois", "raters"):
        (folder / part).mkdir(parents=True)
    if score_file is None:
        score_file = folder / "scores" / "A.nii.gz"
        write_volume(score_file, score, AFFINE)
        write_volume(folder / "scores" / "rois" / "A.nii.gz", roi, AFFINE)
        record = folder / "scores" / "prediction.json"
        record.write_text(json.dumps({"ensemble": {}, "calibrator": None}))
    files = [folder / "raters" / f"{name}.nii.gz" for name in ("1", "2", "vessels", "roi")]
    for path, array in zip(files, (*raters, vessels, roi), strict=True):
        write_volume(path, array, AFFINE)
    return Case("A", score_file, (files[0], files[1]), files[2], files[3])


def write_probabilities(folder):
    score = arrays()[0].T
    parts = np.stack([1 - score, score / 2, score / 2])
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / "A.npz", probabilities=parts)
    write_volume(folder / "A.nii.gz", (score.T > 0.5).astype(np.uint8), AFFINE)
    return folder / "A.npz"


def beside(folder):
    """Probabilities of classes, as in a folder of nnU-Net's predictions."""
    write_description(folder / "nnunet")
    return nifti(folder, write_probabilities(folder / "nnunet"))


def validation(folder):
    """The validation of a trained model, whose description is two folders up."""
    write_description(folder / "model")
    return nifti(folder, write_probabilities(folder / "model" / "fold_0" / "validation"))


def metaimage(folder):
    """Headers (.mhd) whose voxels are in files of their own."""
    pytest.importorskip("SimpleITK")
    score, raters, vessels, roi = arrays()
    paths = []
    for name, array in zip("sabvr", (score, *raters, vessels, roi), strict=True):
        paths.append(folder / name / "A.mhd")
        paths[-1].parent.mkdir(parents=True)
        paths[-1].with_suffix(".raw").write_bytes(array.tobytes(order="F"))
        kind = "MET_FLOAT" if array.dtype.kind == "f" else "MET_UCHAR"
        paths[-1].write_text(
            f"ObjectType = Image\nNDims = 3\nDimSize = {' '.join(map(str, SHAPE))}\n"
            f"ElementSpacing = 0.8 0.8 2\nElementType = {kind}\nHeaderSize = -1\n"
            "ElementDataFile = A.raw\n"
        )
    return Case("A", paths[0], (paths[1], paths[2]), paths[3], paths[4])


def archives(folder):
    """Single volumes in .npz files, raters among them, beside files that lend their geometry."""
    case = nifti(folder)
    files = []
    for number, (name, array) in enumerate(
        zip("sabvr", (arrays()[0], *arrays()[1], *arrays()[2:]), strict=True)
    ):
        path = folder / f"archive_{number}" / f"{name}.npz"
        path.parent.mkdir()
        np.savez(path, volume=array)
        write_volume(path.with_suffix(".nii.gz"), arrays()[3], AFFINE)
        files.append(path)
    return Case(case.name, files[0], (files[1], files[2]), files[3], files[4])


LAYOUTS = [nifti, beside, validation, metaimage, archives]


@pytest.fixture(params=LAYOUTS, ids=lambda layout: layout.__name__)
def case(request, tmp_path):
    return request.param(tmp_path / "cohort")


def calibrator():
    return Calibrator(bins=5).fit(np.linspace(0, 1, 99), [np.arange(99) > 60])


JOBS = {
    "fit in the box": lambda _: TallyJob("box", (1, 2)),
    "fit in the roi": lambda _: TallyJob("roi", (1, 2)),
    "apply": lambda folder: ApplyJob(calibrator(), folder, tumour=(1, 2)),
    "apply, not in slabs": lambda folder: ApplyJob(
        calibrator(), folder, ending=".mha", tumour=(1, 2)
    ),
    "evaluate": lambda _: EvaluateJob(tumour=(1, 2)),
    "evaluate in the roi": lambda _: EvaluateJob(region="roi", tumour=(1, 2)),
    "evaluate a calibrator": lambda _: EvaluateJob(calibrator=calibrator(), tumour=(1, 2)),
}


@pytest.fixture(params=JOBS)
def job(request, tmp_path):
    if "slabs" in request.param:
        pytest.importorskip("SimpleITK")
    return JOBS[request.param](tmp_path / "out")


_opened: list[Path] | None = None  # while somebody listens
_hooked = False


@contextmanager
def listening(folder):
    """Give the files below a folder that are opened for reading, by whatever thread."""
    global _opened, _hooked
    if not _hooked:  # once: no hook is ever taken away
        sys.addaudithook(_note)
        _hooked = True
    found: set[Path] = set()
    _opened = []
    yield found
    found.update(path for path in _opened if path.is_relative_to(folder) and path.is_file())
    _opened = None


def _note(event, arguments):
    if event != "open" or _opened is None or isinstance(arguments[0], (int, type(None))):
        return
    path, _, flags = arguments
    if flags & (os.O_RDONLY | os.O_WRONLY | os.O_RDWR) != os.O_WRONLY:
        _opened.append(Path(os.fsdecode(path)).absolute())


def run(case, job, folder):
    store = Store(folder, job.kind, job.options)
    with store.writing([case.name]):
        return process_case(case, job, store, MemoryBudget(1 << 30))


def test_every_file_that_a_job_reads_is_one_of_its_files(case, job, tmp_path):
    known = set(job.files(case).values())
    (tmp_path / "out").mkdir()
    with listening(tmp_path / "cohort") as opened:
        outcome = run(case, job, tmp_path / "store")
    assert outcome.failure is None
    assert case.score in opened
    assert opened <= known
    # What is named and never opened would make work be done again for nothing.
    unread = {path.name for path in known - opened}
    assert unread <= {"dataset.json", "plans.json"}


def test_a_file_that_is_replaced_or_goes_or_comes_is_seen_whichever_it_is(case, job, tmp_path):
    """Such as a dataset.json that is put beside the scores later."""
    (tmp_path / "out").mkdir()
    store = Store(tmp_path / "store", job.kind, job.options)

    def state():
        return plan_cases([case], job, store)[0].state

    assert run(case, job, tmp_path / "store").state == "done"
    for role, path in job.files(case).items():
        assert state() == "stored"
        before = path.read_bytes()
        path.write_bytes(before + b"\n")
        assert state() != "stored", role
        path.unlink()
        assert state() != "stored", role
        path.write_bytes(before)
    beside = case.score.with_name("dataset.json")
    if case.score.suffix == ".npz" and not beside.exists():
        assert state() == "stored"
        beside.write_text(json.dumps({**LABELS, "regions_class_order": None}))
        assert state() == "to do"


def test_roles_say_what_a_file_is_and_not_where(tmp_path):
    cases = [layout(tmp_path / name / layout.__name__) for name in "ab" for layout in LAYOUTS]
    found = [set(case_files(case, vessels=True, roi=True)) for case in cases]
    assert found[:5] == found[5:]
    own = {"score", "rater_1", "rater_2", "vessels", "roi"}
    assert found[0] - own == {"score.record"}
    assert found[1] - own >= {"score.nii.gz", "score.dataset.json"}
    assert found[1] == found[2]
    assert found[3] - own == {f"{role}.raw" for role in own}
    assert found[4] - own >= {f"{role}.nii.gz" for role in own}


def test_files_of_one_name_have_roles_of_their_own(tmp_path, monkeypatch):
    parts = [tmp_path / folder / "0.raw" for folder in "abc"]
    monkeypatch.setattr("twintrack.runs.inputs.files_read", lambda _: parts)
    found = with_files_read({"score": tmp_path / "s.mhd"})
    assert [found[role] for role in ("score.0.raw", "score.0.raw.2", "score.0.raw.3")] == parts


def test_region_of_the_prediction_is_the_file_of_a_role(tmp_path):
    case = Case("A", nifti(tmp_path).score, ())
    job = ApplyJob(calibrator(), tmp_path / "out")
    assert job.files(case)["roi"] == region_of_case(case) is not None
