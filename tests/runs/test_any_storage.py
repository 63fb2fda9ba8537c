"""However a case's files are cropped, flipped and turned, tallies and figures are the same."""

from __future__ import annotations

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from twintrack.cohort import Case
from twintrack.runs.evaluate import EvaluateJob
from twintrack.runs.fit import TallyJob
from twintrack.volumes import write_volume

SHAPE = (12, 11, 10)
AFFINE = nib.affines.from_matvec(
    np.array([[0.0, -0.8, 0.1], [0.7, 0.0, 0.0], [0.0, 0.05, 2.5]]), (9, -7, 12)
)
WHOLE = (slice(None), slice(None), slice(None))
INSIDE = (slice(2, 10), slice(3, 9), slice(1, 8))  # all that raters mark


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    folder = tmp_path_factory.mktemp("case")
    rng = np.random.default_rng(4)
    score = rng.random(SHAPE, np.float32)
    write_volume(folder / "score.nii.gz", score, AFFINE)
    files = {"r1": rng.random(SHAPE) < 0.4, "r2": rng.random(SHAPE) < 0.6}
    for name, mask in files.items():
        kept = np.zeros(SHAPE, np.uint8)
        kept[INSIDE] = mask[INSIDE]
        write_volume(folder / f"{name}.nii.gz", kept, AFFINE)
    vessels = np.zeros(SHAPE, np.uint8)
    vessels[5:7, :, 3:6] = rng.integers(0, 6, (2, SHAPE[1], 3))
    write_volume(folder / "vessels.nii.gz", vessels, AFFINE)
    roi = np.zeros(SHAPE, np.uint8)
    roi[1:11, 2:10, :9] = 1
    write_volume(folder / "roi.nii.gz", roi, AFFINE)
    raters = tuple(folder / f"{name}.nii.gz" for name in files)
    return Case(
        "A", folder / "score.nii.gz", raters, folder / "vessels.nii.gz", folder / "roi.nii.gz"
    )


def stored_otherwise(path, folder, box, axes, flips):
    image = nib.load(path).slicer[box]
    turn = np.column_stack([axes, flips]).astype(float)
    name = folder / path.name
    nib.save(image.as_reoriented(turn), name)
    return name


axes = st.permutations(range(3))
flips = st.tuples(*[st.sampled_from((1, -1))] * 3)


def otherwise(case, folder, names, data):
    """Store some files of a case in other axes, and annotations cropped to what they mark."""
    stored = {}
    for name in ("score", *range(len(case.raters)), "vessels", "roi"):
        path = case.raters[name] if isinstance(name, int) else getattr(case, name)
        turn = (data.draw(axes), data.draw(flips)) if name in names else ((0, 1, 2), (1, 1, 1))
        box = data.draw(st.sampled_from([WHOLE, INSIDE])) if isinstance(name, int) else WHOLE
        stored[name] = stored_otherwise(path, folder, box, *turn)
    raters = tuple(stored[k] for k in range(len(case.raters)))
    return Case("A", stored["score"], raters, stored["vessels"], stored["roi"])


several = settings(
    deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@several
@given(st.data(), st.sampled_from(["all", "box", "roi"]))
def test_tallies_do_not_depend_on_storage(case, tmp_path, data, region):
    stored = otherwise(case, tmp_path, {"score", 0, 1, "roi"}, data)
    job = TallyJob(region)
    found, expected = (job.compute(job.read(one)) for one in (stored, case))
    assert found.tally == expected.tally
    assert found.voxels == expected.voxels


@several
@given(
    st.data(), st.sampled_from(["all", "box", "roi"]), st.sampled_from(["official", "corrected"])
)
def test_figures_do_not_depend_on_how_a_file_is_stored(case, tmp_path, data, region, protocol):
    name = data.draw(st.sampled_from(["score", 0, 1, "vessels", "roi"]))
    stored = otherwise(case, tmp_path, {name}, data)
    job = EvaluateJob(region=region, protocol=protocol)
    found, expected = (job.compute(job.read(one)) for one in (stored, case))
    assert found.tally == expected.tally
    assert found.result["figures"] == expected.result["figures"]


def test_a_bad_voxel_is_named_as_its_file_has_it(case, tmp_path):
    image = nib.load(case.raters[1])
    array = np.asarray(image.dataobj).copy()
    array[3, 4, 5] = 7
    nib.save(nib.Nifti1Image(array, image.affine), tmp_path / "bad.nii.gz")
    path = stored_otherwise(tmp_path / "bad.nii.gz", tmp_path, INSIDE, (1, 0, 2), (1, -1, 1))
    stored = np.asarray(nib.load(path).dataobj)
    voxel = ", ".join(str(int(i)) for i in np.argwhere(stored == 7)[0])
    bad = replace(case, raters=(case.raters[0], path))
    for job in (TallyJob("all"), EvaluateJob()):
        with pytest.raises(
            ValueError, match=rf"raters\[1\]\[{voxel}\] is 7.* holds 0, 1, 7: .*--label"
        ):
            job.compute(job.read(bad))
