"""Whatever formats and axes a case's files are stored in, tallies, figures and outputs are one."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from twintrack import Calibrator
from twintrack.cohort import Case
from twintrack.runs.apply import ApplyJob, apply_cohort
from twintrack.runs.evaluate import EvaluateJob
from twintrack.runs.fit import TallyJob
from twintrack.volumes import read_score

sitk = pytest.importorskip("SimpleITK")

SHAPE = (9, 8, 7)
SPACING = np.array([0.7, 0.8, 2.5])
rng = np.random.default_rng(8)
SCORE = (np.rint(rng.random(SHAPE) * 64) / 64).astype("f4")
MASKS = [(rng.random(SHAPE) < p).astype("u1") for p in (0.3, 0.6)]


def by_nibabel(path: Path, array: np.ndarray) -> None:
    affine = np.diag([*(-1, -1, 1) * SPACING, 1])
    nib.save(nib.Nifti1Image(array, affine, dtype=array.dtype), path)


def by_itk(path: Path, array: np.ndarray) -> None:
    """Write (x, y, z) or, as vectors, (c, x, y, z)."""
    vectors = array.ndim == 4
    stored = np.moveaxis(array, 0, -1).transpose(2, 1, 0, 3) if vectors else array.T
    image = sitk.GetImageFromArray(np.ascontiguousarray(stored), isVector=vectors)
    image.SetSpacing(SPACING.tolist())
    sitk.WriteImage(image, str(path))


CLASSES = np.stack([1 - SCORE, SCORE])

SCORES = {
    "a.nii.gz": lambda path: by_nibabel(path, SCORE),
    "last.nii": lambda path: by_nibabel(path, np.moveaxis(CLASSES, 0, -1)),
    "first.nii.gz": lambda path: by_nibabel(path, CLASSES),
    "batch.nii.gz": lambda path: by_nibabel(path, CLASSES[None]),
    "vectors.nii.gz": lambda path: by_itk(path, CLASSES),
    "vectors.mha": lambda path: by_itk(path, CLASSES),
    "vectors.nrrd": lambda path: by_itk(path, CLASSES),
    "vectors.nhdr": lambda path: by_itk(path, CLASSES),
    "a.mhd": lambda path: by_itk(path, SCORE),
    "a.nrrd": lambda path: by_itk(path, SCORE),
    "first.npy": lambda path: np.save(path, CLASSES),
    "last.npy": lambda path: np.save(path, np.moveaxis(CLASSES, 0, -1)),
    "classes.npz": lambda path: np.savez(path, probabilities=CLASSES.transpose(0, 3, 2, 1)),
}
RATERS = {
    "a.nii.gz": by_nibabel,
    "a.nhdr": by_itk,
    "a.seg.nrrd": by_itk,
    "a.npy": lambda path, mask: np.save(path, mask[None]),
    "a.npz": lambda path, mask: np.savez(path, seg=mask.T[None]),
    "last.nii.gz": lambda path, mask: by_nibabel(path, mask[..., None]),
}


def stored(folder: Path, score: str, rater: str) -> Case:
    SCORES[score](folder / score)
    raters = [folder / f"{k}{rater}" for k in range(len(MASKS))]
    for path, mask in zip(raters, MASKS, strict=True):
        RATERS[rater](path, mask)
    return Case("A", folder / score, tuple(raters))


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    case = stored(tmp_path_factory.mktemp("plain"), "a.nii.gz", "a.nii.gz")
    return [job.compute(job.read(case)) for job in (TallyJob("all"), EvaluateJob(region="all"))]


@pytest.mark.parametrize(
    ("score", "rater"),
    [*((score, "a.nii.gz") for score in SCORES), *(("a.nii.gz", rater) for rater in RATERS)],
)
def test_tallies_and_figures(tmp_path, expected, score, rater):
    case = stored(tmp_path, score, rater)
    jobs = TallyJob("all"), EvaluateJob(region="all")
    tallied, evaluated = (job.compute(job.read(case)) for job in jobs)
    assert tallied.tally == expected[0].tally
    assert evaluated.tally == expected[1].tally
    assert evaluated.result["figures"] == expected[1].result["figures"]
    known = {"tumour": [1]} if score not in ("a.nii.gz", "a.mhd", "a.nrrd") else {}
    assert tallied.result.get("ensemble", {}) == known


@pytest.mark.parametrize("score", [name for name in SCORES if not name.endswith(("npy", "npz"))])
def test_what_is_calibrated_lies_where_the_score_lay(tmp_path, score):
    case = stored(tmp_path, score, "a.nii.gz")
    calibrator = Calibrator(bins=9).fit(SCORE, MASKS)
    apply_cohort([case], ApplyJob(calibrator, tmp_path / "out"))
    found = read_score(tmp_path / "out/A.nii.gz")
    np.testing.assert_array_equal(found.array, calibrator.transform(SCORE))
    np.testing.assert_allclose(found.affine, np.diag([*(-1, -1, 1) * SPACING, 1]), atol=1e-6)
