from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from twintrack import Calibrator, ScoreTally
from twintrack.cohort import Case, load_case
from twintrack.runs import streaming
from twintrack.runs.apply import ApplyJob, apply_cohort
from twintrack.runs.fit import TallyJob
from twintrack.runs.streaming import open_case
from twintrack.volumes import read_score, read_volume, write_volume
from twintrack.volumes.slabs import open_slabs

SHAPE = (9, 8, 31)
AFFINE = np.diag([0.7, 0.7, 2.0, 1.0])


@pytest.fixture(autouse=True)
def small_slabs(monkeypatch):
    """Slabs of 7 planes: the last one is smaller."""
    monkeypatch.setattr(streaming, "SLAB_VOXELS", 9 * 8 * 7)


def score_file(folder, name):
    score = np.random.default_rng(0).random(SHAPE, np.float32)
    path = folder / name
    (folder / "dataset.json").write_text('{"labels": {"background": 0, "tumour": 1}}')
    if name in ("s.nii", "s.nii.gz"):
        write_volume(path, score, AFFINE)
    elif name == "scaled.nii.gz":
        write_volume(path, score, AFFINE, dtype="uint8")
    elif name == "s.npy":
        np.save(path, score)
    elif name == "s.npz":
        np.savez(path, score=score)
    elif name == "classes.npz":
        np.savez_compressed(path, probabilities=np.stack([1 - score.T, score.T / 2, score.T / 2]))
    elif name == "half.npz":
        halves = np.stack([1 - score.T, score.T / 3, score.T / 3, score.T / 3]).astype(np.float16)
        np.savez(path, probabilities=halves)
    return path


FORMATS = ["s.nii", "s.nii.gz", "scaled.nii.gz", "s.npy", "s.npz", "classes.npz", "half.npz"]


@pytest.fixture
def case(tmp_path):
    rng = np.random.default_rng(1)
    raters = []
    for k in range(2):
        mask = np.zeros(SHAPE, np.int16)
        mask[2:6, 3:5, 22:29] = (
            rng.random((4, 2, 7)) < 0.5
        )  # far enough for the box to have an edge
        raters.append(tmp_path / f"rater_{k}.nii.gz")
        write_volume(raters[k], mask, AFFINE)
    roi = np.zeros(SHAPE, np.uint8)
    roi[1:8, 1:7, 5:20] = 1
    write_volume(tmp_path / "roi.nii.gz", roi, AFFINE)
    return Case("A", score_file(tmp_path, "s.nii.gz"), tuple(raters), roi=tmp_path / "roi.nii.gz")


@pytest.mark.parametrize("planes", [1, 7, 31, 100])
@pytest.mark.parametrize("name", FORMATS)
def test_slabs_hold_what_reading_the_whole_gives(tmp_path, name, planes):
    path = score_file(tmp_path, name)
    classes = (1, 2) if "classes" in name else (3, 1) if "half" in name else (1,)
    whole = read_volume(path, classes)
    slabs = open_slabs(path, classes)
    for _ in range(2):  # as often as wanted
        joined = np.concatenate(list(slabs.slabs(planes)), axis=2)
        assert joined.dtype == whole.array.dtype == slabs.place.array.dtype
        assert np.array_equal(joined, whole.array)
    assert slabs.place.array.shape == whole.array.shape
    if whole.affine is not None:
        assert np.array_equal(slabs.place.affine, whole.affine)


@pytest.mark.parametrize("region", ["roi", "box", "all"])
@pytest.mark.parametrize("name", FORMATS)
def test_same_tally_as_from_memory(case, tmp_path, name, region):
    case = dataclasses.replace(case, score=score_file(tmp_path, name))
    job = TallyJob(region)
    product = job.compute(job.read(case))
    loaded = load_case(case, region)
    expected = ScoreTally(2).update(loaded.score.array, loaded.raters, loaded.region)
    assert product.tally == expected
    assert product.voxels == loaded.score.array.size
    assert product.result["voxels_in_region"] == expected.voxels


def test_slabs_carry_the_region_of_the_whole(case):
    for rule in ("roi", "box"):
        slabs = list(open_case(case, rule, False, (1,)).slabs())
        assert [slab.score.shape[2] for slab in slabs] == [7, 7, 7, 7, 3]
        region = np.concatenate([slab.region for slab in slabs], axis=2)
        assert np.array_equal(region, load_case(case, rule).region)
        assert not region.all()


def rewrite(path, change):
    volume = read_volume(path)
    array = volume.array.copy()
    change(array)
    write_volume(path, array, volume)


@pytest.mark.parametrize(
    ("file", "voxel", "value", "message"),
    [
        ("score", (3, 4, 23), np.nan, r"score\[3, 4, 23\] is nan"),
        ("rater", (8, 7, 30), 2, r"raters\[1\]\[8, 7, 30\] is 2"),
        ("roi", (0, 0, 16), 3, r"roi\.nii\.gz: voxel \(0, 0, 16\) is 3"),
    ],
)
def test_bad_values_are_placed_in_the_volume(case, file, voxel, value, message):
    path = {"score": case.score, "rater": case.raters[1], "roi": case.roi}[file]

    def change(array):
        array[voxel] = value

    rewrite(path, change)
    job = TallyJob("roi" if file == "roi" else "all")
    with pytest.raises(ValueError, match=message):
        job.compute(job.read(case))


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".npy", ".npz"])
def test_the_value_of_a_mask_is_one_over_all_slabs(case, tmp_path, suffix):
    """0 and 255 is a mask; a map of labels is none, though no slab holds two of them."""
    path = tmp_path / f"mask{suffix}"
    masked = dataclasses.replace(case, roi=path)
    mask = read_volume(case.roi).array
    job = TallyJob("roi")
    expected = job.compute(job.read(case)).tally

    def write(array):
        if suffix == ".npy":
            np.save(path, array)
        elif suffix == ".npz":
            np.savez(path, mask=array)
        else:
            write_volume(path, array, AFFINE)

    write(mask * 255)
    assert job.compute(job.read(masked)).tally == expected
    labels = mask.copy()
    labels[..., 14:] *= 2
    write(labels)
    message = r": voxel \(1, 1, 14\) is 2 but a voxel before it is 1; a region is 0 where"
    with pytest.raises(ValueError, match=rf"mask{suffix}{message}"):
        job.compute(job.read(masked))
    with pytest.raises(ValueError, match=rf"mask{suffix}{message}"):
        load_case(masked, "roi")


def test_truth_about_the_end_of_a_file_is_asked_for(case):
    """A checksum comes last; who stops after the last voxel would not notice."""
    data = bytearray(case.raters[0].read_bytes())
    data[-8] ^= 1  # CRC-32 of the gzip member
    case.raters[0].write_bytes(data)
    job = TallyJob("all")
    with pytest.raises(ValueError, match=r"rater_0\.nii\.gz"):
        job.compute(job.read(case))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("classes", [(1,), (1, 2), (2, 1)])
def test_damaged_class_probabilities_are_found_in_slabs_too(tmp_path, save, classes):
    rng = np.random.default_rng(3)
    path = tmp_path / "a.npz"
    # The last class is never looked at; its bytes come before the checksum all the same.
    save(path, probabilities=rng.random((4, *SHAPE[::-1]), np.float32) / 4)
    (tmp_path / "dataset.json").write_text('{"labels": {"background": 0, "tumour": 1}}')
    data = path.read_bytes()
    for place in (0.3, 0.9):
        flipped = bytearray(data)
        flipped[int(place * len(data))] ^= 1
        path.write_bytes(flipped)
        with pytest.raises(ValueError, match=r"a\.npz: corrupt"):
            list(open_slabs(path, classes).slabs(7))


@pytest.mark.parametrize(
    ("region", "change", "message"),
    [
        ("roi", lambda case: rewrite(case.roi, lambda a: a.fill(0)), "the mask is empty"),
        (
            "box",
            lambda case: [rewrite(path, lambda a: a.fill(0)) for path in case.raters],
            "no rater marks any voxel",
        ),
        (
            "all",
            lambda case: np.save(
                case.raters[1].with_suffix(".npy"), np.zeros((9, 8, 30), np.uint8)
            ),
            r"shape \(9, 8, 30\) differs",
        ),
        (
            "all",
            lambda case: write_volume(case.raters[1], np.zeros(SHAPE, np.uint8), 2 * AFFINE),
            "lies on another grid",
        ),
        (
            "all",
            lambda case: write_volume(case.score, np.zeros(SHAPE, np.uint8), AFFINE),
            "a segmentation, not a score",
        ),
    ],
)
def test_what_loading_refuses_streaming_refuses(case, region, change, message):
    change(case)
    if (saved := case.raters[1].with_suffix(".npy")).is_file():
        case = dataclasses.replace(case, raters=(case.raters[0], saved))
    job = TallyJob(region)
    with pytest.raises(ValueError, match=message):
        job.compute(job.read(case))


@pytest.mark.parametrize("dtype", ["float32", "uint16"])
@pytest.mark.parametrize("name", FORMATS)
def test_streamed_volumes_are_the_same_files(case, tmp_path, name, dtype):
    score = score_file(tmp_path, name)
    if score.suffix in (".npz", ".npy"):
        beside = np.zeros(SHAPE, np.uint8)
        write_volume(tmp_path / f"{score.stem}.nii.gz", beside, AFFINE)
    calibrator = Calibrator(bins=20).fit(
        np.linspace(0, 1, 1000, dtype=np.float32), [np.linspace(0, 1, 1000) > 0.7]
    )
    job = ApplyJob(calibrator, tmp_path / "out", dtype)
    (outcome,) = apply_cohort([Case("A", score, ())], job)
    if name == "s.npy":  # has no geometry
        assert "has no geometry to keep" in outcome.failure.message
        return
    volume = read_score(score)
    expected = tmp_path / "expected.nii.gz"
    write_volume(expected, calibrator.transform(volume.array), volume, dtype)
    assert job.place(Case("A", score, ())).read_bytes() == expected.read_bytes()


def test_streamed_volume_with_a_bad_voxel_is_not_written(case, tmp_path):
    def change(array):
        array[1, 2, 23] = 1.5

    rewrite(case.score, change)
    calibrator = Calibrator(target="none").fit(np.zeros(5, np.float32), [np.zeros(5)])
    job = ApplyJob(calibrator, tmp_path / "out")
    (outcome,) = apply_cohort([case], job)
    assert outcome.failure.message.startswith("s.nii.gz: voxel (1, 2, 23) is 1.5")
    assert not job.place(case).exists()


BOX = (slice(1, 8), slice(2, 7), slice(9, 26))  # ends inside of what raters mark


@pytest.fixture
def cropped(case, tmp_path):
    """The case with the score of a crop, and the case of that crop with all files cropped."""
    affine = AFFINE.copy()
    affine[:3, 3] = AFFINE[:3, :3] @ [part.start for part in BOX]
    cut = {}
    for name, path in (("s", case.score), *enumerate(case.raters), ("roi", case.roi)):
        cut[name] = tmp_path / f"cut_{name}.nii.gz"
        write_volume(cut[name], read_volume(path).array[BOX], affine)
    crop = Case("A", cut["s"], (cut[0], cut[1]), roi=cut["roi"])
    return dataclasses.replace(case, score=cut["s"]), crop


@pytest.mark.parametrize("region", ["roi", "box", "all"])
@pytest.mark.parametrize("mapped", [False, True])
def test_annotations_are_cropped_to_a_score_that_is_a_crop(cropped, tmp_path, region, mapped):
    case, crop = cropped
    if mapped:  # uncompressed files are read in another way
        raters = [tmp_path / f"plain_{k}.nii" for k in range(2)]
        for path, plain in zip(case.raters, raters, strict=True):
            write_volume(plain, read_volume(path).array, AFFINE)
        case = dataclasses.replace(case, raters=tuple(raters))
    job = TallyJob(region)
    product, expected = (job.compute(job.read(of)) for of in (case, crop))
    assert product.tally == expected.tally
    assert product.voxels == expected.voxels
    marked = [np.count_nonzero(read_volume(path).array) for path in (*case.raters, *crop.raters)]
    outside = sum(marked[:2]) - sum(marked[2:])
    assert outside > 0
    assert product.result == {**expected.result, "marked_outside": outside}
    if region == "roi":  # of the crop already
        job = TallyJob(region)
        mixed = dataclasses.replace(case, roi=crop.roi)
        assert job.compute(job.read(mixed)).tally == expected.tally


@pytest.mark.parametrize(
    ("file", "voxel", "message"),
    [
        ("score", (3, 4, 13), r"score\[3, 4, 13\] is 2"),
        ("rater", (7, 6, 24), r"raters\[1\]\[7, 6, 24\] is 2"),
        ("roi", (1, 2, 16), r"roi\.nii\.gz: voxel \(1, 2, 16\) is 2"),
    ],
)
def test_bad_values_of_a_cropped_case_are_placed_in_their_own_files(cropped, file, voxel, message):
    case, _ = cropped
    path = {"score": case.score, "rater": case.raters[1], "roi": case.roi}[file]

    def change(array):
        array[voxel] = 2

    rewrite(path, change)
    job = TallyJob("roi" if file == "roi" else "all")
    with pytest.raises(ValueError, match=message):
        job.compute(job.read(case))


@pytest.mark.parametrize("plane", [3, 28])  # before and behind the crop
def test_a_map_of_labels_is_no_mask_of_a_crop_either(cropped, tmp_path, plane):
    """Inside the crop it holds one label."""
    case, _ = cropped

    def change(array):
        array[0, 0, plane] = 2

    rewrite(case.roi, change)
    message = rf"roi\.nii\.gz: voxel \(\d, \d, {max(plane, 5)}\) is . but a voxel before it is"
    fit = TallyJob("roi")
    for read in (lambda: fit.compute(fit.read(case)), lambda: load_case(case, "roi")):
        with pytest.raises(ValueError, match=message):
            read()
    identity = Calibrator(target="none").fit(np.zeros(5, np.float32), [np.zeros(5)])
    (outcome,) = apply_cohort([case], ApplyJob(identity, tmp_path / "out"))
    assert re.match(message, outcome.failure.message)


def test_crop_without_any_mark_is_named(cropped):
    case, _ = cropped
    for path in case.raters:
        rewrite(path, lambda array: array[..., :26].fill(0))
    job = TallyJob("box")
    with pytest.raises(ValueError, match=r"no rater marks any voxel where .*cut_s\.nii\.gz lies"):
        job.compute(job.read(case))
