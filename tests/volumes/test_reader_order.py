"""nnU-Net's class probabilities in the axes of every reader."""

from __future__ import annotations

import itertools
import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import aff2axcodes
from nnunet_scores import Placed, affine_of, as_read, describe, in_slabs, probabilities, write_case

from twintrack import Calibrator
from twintrack.cohort import Case, find_scores
from twintrack.runs.apply import ApplyJob, apply_cohort
from twintrack.runs.engine import Settings
from twintrack.runs.evaluate import EvaluateJob, evaluate_cohort
from twintrack.runs.fit import TallyJob, fit_cohort, tally_cohort
from twintrack.runs.memory import case_bytes
from twintrack.volumes import read_score, read_volume, write_volume
from twintrack.volumes.nnunet_files import READERS, files_read
from twintrack.volumes.slabs import open_slabs

SHAPE = (14, 12, 10)
CODES = ("RAS", "LPS", "LAS", "LPI", "PIR", "SAL", "ASR")
ALL_CODES = [
    "".join(pair[flip] for pair, flip in zip(axes, flips, strict=True))
    for axes in itertools.permutations(("RL", "AP", "SI"))
    for flips in itertools.product((0, 1), repeat=3)
]


@pytest.fixture
def placed(tmp_path):
    return Placed(tmp_path)


# --- every reader ---------------------------------------------------------------------------------


@pytest.mark.parametrize("oblique", [False, True])
@pytest.mark.parametrize("codes", CODES)
@pytest.mark.parametrize("reader", READERS)
def test_axes_are_those_of_the_file_whatever_the_reader(placed, reader, codes, oblique):
    path, found, affine = placed(reader, codes=codes, oblique=oblique)
    volume = read_score(path)
    np.testing.assert_array_equal(volume.array, found[1])
    np.testing.assert_allclose(volume.affine, affine, atol=1e-4)
    assert volume.array.flags.f_contiguous
    assert volume.notes == ()
    for planes in (1, 3, SHAPE[2], 100):
        array, opened = in_slabs(path, planes=planes)
        np.testing.assert_array_equal(array, found[1])
        assert opened.notes == []
    np.testing.assert_array_equal(read_score(path, (2, 1)).array, in_slabs(path, (2, 1))[0])


@pytest.mark.parametrize("codes", ["LPS", "LPI"])
def test_turned_metaimages(tmp_path, codes):
    found, affine = probabilities(SHAPE), affine_of(codes)
    describe(tmp_path, "SimpleITKIOWithReorient")
    path = write_case(tmp_path, "a", found, affine, "SimpleITKIOWithReorient")
    (tmp_path / "a.nii.gz").unlink()
    write_volume(tmp_path / "a.mha", found.argmax(0).astype("u1"), affine)
    np.testing.assert_array_equal(read_score(path).array, found[1])
    np.testing.assert_array_equal(in_slabs(path)[0], found[1])


def test_memory_is_that_of_the_whole_where_planes_are_turned_over(placed, monkeypatch):
    monkeypatch.setattr("twintrack.runs.memory._OVERHEAD", 0)
    voxels = int(np.prod(SHAPE))
    for reader, codes, whole in (
        ("NibabelIO", "LPI", False),
        ("NibabelIOWithReorient", "LPS", False),
        ("NibabelIOWithReorient", "LPI", True),
        ("NibabelIOWithReorient", "PIR", True),
    ):
        path, *_ = placed(reader, codes=codes)
        estimate = case_bytes({"score": path}, 10)
        assert (estimate >= 8 * voxels) == whole
        values = open_slabs(path).place.array
        assert (values.strides != (0, 0, 0)) == whole  # or an array without memory


@settings(max_examples=60)
@given(
    codes=st.sampled_from(ALL_CODES),
    reader=st.sampled_from(list(READERS)),
    shape=st.tuples(*(st.integers(6, 9) for _ in range(3))),
    planes=st.integers(1, 10),
    seed=st.integers(0, 100),
    oblique=st.booleans(),
    half=st.booleans(),
)
def test_all_48_orientations(tmp_path_factory, codes, reader, shape, planes, seed, oblique, half):
    folder = tmp_path_factory.mktemp("case")
    affine = affine_of(codes, oblique)
    assert "".join(aff2axcodes(affine)) == codes
    found = probabilities(shape, seed).astype(np.float16 if half else np.float32)
    describe(folder, reader)
    path = write_case(folder, "a", found, affine, reader)
    volume = read_score(path)
    array, opened = in_slabs(path, planes=planes)
    np.testing.assert_array_equal(volume.array, found[1])
    np.testing.assert_array_equal(array, found[1])
    assert volume.notes == ()
    assert opened.notes == []
    shutil.rmtree(folder)


def test_simpleitk_and_nibabel_turn_to_the_same_axes():
    # One table serves both: of an oblique image both take the closest axes.
    sitk = pytest.importorskip("SimpleITK")
    for codes in ALL_CODES:
        affine = affine_of(codes, oblique=True)
        lps = np.diag([-1, -1, 1]) @ affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
        image = sitk.GetImageFromArray(np.arange(5 * 4 * 3, dtype="f4").reshape(3, 4, 5))
        image.SetDirection(lps.ravel().tolist())
        turned = sitk.GetArrayFromImage(sitk.DICOMOrient(image, "RAS"))
        array = sitk.GetArrayFromImage(image).T
        np.testing.assert_array_equal(turned, as_read(array, affine, "NibabelIOWithReorient"))


# --- where the reader is named --------------------------------------------------------------------


def lay_out(tmp_path, where, named):
    """Put what names the reader where nnU-Net does; return the folder of the scores."""
    if where == "predictions":
        describe(tmp_path, named)
        return tmp_path
    if where == "ensemble":  # nnUNetv2_ensemble writes no plans
        describe(tmp_path, overwrite_image_reader_writer=named)
        return tmp_path
    describe(tmp_path, named)
    return tmp_path / "fold_0" / "validation"


@pytest.mark.parametrize("where", ["predictions", "ensemble", "validation"])
def test_reader_is_found_where_nnunet_leaves_it(tmp_path, where):
    found, affine = probabilities(SHAPE), affine_of("LPS")
    folder = lay_out(tmp_path, where, "NibabelIOWithReorient")
    path = write_case(folder, "a", found, affine, "NibabelIOWithReorient")
    np.testing.assert_array_equal(read_score(path).array, found[1])
    np.testing.assert_array_equal(in_slabs(path)[0], found[1])


def test_plans_further_up_are_of_something_else(tmp_path):
    describe(tmp_path, "NibabelIOWithReorient")
    found, affine = probabilities(SHAPE), affine_of("LPS")
    path = write_case(tmp_path / "all" / "scores", "a", found, affine, "SimpleITKIO")
    np.testing.assert_array_equal(read_score(path).array, found[1])


def test_plans_beat_the_data_set_as_in_nnunet(tmp_path):
    found, affine = probabilities(SHAPE), affine_of("LPS")
    path = write_case(tmp_path, "a", found, affine, "NibabelIOWithReorient")
    describe(tmp_path, "NibabelIOWithReorient", overwrite_image_reader_writer="SimpleITKIO")
    np.testing.assert_array_equal(read_score(path).array, found[1])
    # Plans that name nobody leave it to the data set.
    (tmp_path / "plans.json").write_text("{}")
    describe(tmp_path, overwrite_image_reader_writer="NibabelIOWithReorient")
    np.testing.assert_array_equal(read_score(path).array, found[1])


@pytest.mark.parametrize("nobody", [{}, {"overwrite_image_reader_writer": "None"}, None])
def test_axes_of_the_file_where_nothing_names_a_reader(tmp_path, nobody):
    found, affine = probabilities(SHAPE), affine_of("LPS")
    path = write_case(tmp_path, "a", found, affine, "SimpleITKIO")
    if nobody is not None:
        describe(tmp_path, **nobody)
    np.testing.assert_array_equal(read_score(path).array, found[1])


@pytest.mark.parametrize("read", [read_score, open_slabs, lambda p: case_bytes({"score": p}, 99)])
def test_unknown_reader_is_refused_with_a_way(tmp_path, read):
    found, affine = probabilities(SHAPE), affine_of("LPS")
    path = write_case(tmp_path / "fold_0" / "validation", "a", found, affine, "SimpleITKIO")
    describe(tmp_path, "MyOwnIO")
    message = r"^\S*a\.npz: \S*plans\.json says that its reader is 'MyOwnIO'.*SimpleITKIO if"
    with pytest.raises(ValueError, match=message):
        read(path)
    for name in (["SimpleITKIO"], 3):
        (tmp_path / "plans.json").write_text(json.dumps({"image_reader_writer": name}))
        with pytest.raises(ValueError, match=r"its reader is"):
            read(path)
    describe(tmp_path, overwrite_image_reader_writer="MyOwnIO")
    (tmp_path / "plans.json").unlink()
    with pytest.raises(ValueError, match=r"dataset\.json says that its reader is 'MyOwnIO'"):
        read(path)
    # The way that the message names.
    describe(path.parent, "SimpleITKIO")
    read(path)
    np.testing.assert_array_equal(read_score(path).array, found[1])


@pytest.mark.parametrize("content", ["", "[]", "[" * 100_000])
def test_damaged_plans_are_refused_by_name(placed, content):
    path, *_ = placed("SimpleITKIO")
    path.with_name("plans.json").write_text(content)
    for read in (read_score, open_slabs):
        with pytest.raises(ValueError, match=r"^\S*plans\.json: (not a JSON|it must be an object)"):
            read(path)


@pytest.mark.parametrize("reader", ["NibabelIOWithReorient", "SimpleITKIOWithReorient"])
def test_turned_scores_without_their_segmentation_are_refused(placed, reader):
    path, *_ = placed(reader)
    path.with_name("a.nii.gz").unlink()
    for read in (read_score, open_slabs):
        with pytest.raises(ValueError, match=rf"a\.npz.*{reader}.*put it beside them, as a\.nii"):
            read(path)


@pytest.mark.parametrize("reader", ["Tiff3DIO", "NaturalImage2DIO", ".TIF", ".png"])
def test_pictures_are_refused_unless_their_segmentation_was_converted(tmp_path, reader):
    found, affine = probabilities(SHAPE), affine_of("RAS")
    path = write_case(tmp_path, "a", found, affine, "SimpleITKIO")
    if reader.startswith("."):
        describe(tmp_path, file_ending=reader)
    else:
        describe(tmp_path, reader)
    np.testing.assert_array_equal(read_score(path).array, found[1])
    (tmp_path / "a.nii.gz").rename(tmp_path / "a.tif")
    for read in (read_score, open_slabs):
        with pytest.raises(
            ValueError, match=r"a\.npz.*TIFF and other pictures are not read.*NIfTI"
        ):
            read(path)


def test_arrays_of_three_axes_have_no_reader(tmp_path):
    describe(tmp_path, "MyOwnIO")
    score = probabilities(SHAPE)[1]
    np.savez(tmp_path / "a.npz", score=score)
    np.testing.assert_array_equal(read_score(tmp_path / "a.npz").array, score)


def test_a_shape_that_fits_when_turned_names_the_plans(placed):
    path, *_ = placed("NibabelIOWithReorient", said="SimpleITKIO", codes="PIR")
    for read in (read_score, open_slabs):
        with pytest.raises(
            ValueError, match=r"differs from .*turned the image to RAS.*plans\.json"
        ):
            read(path)
    nib.save(nib.Nifti1Image(np.zeros((3, 4, 5), "u1"), np.eye(4)), path.with_name("a.nii.gz"))
    with pytest.raises(ValueError, match=r"\(3, 4, 5\).*put back on the image's grid first$"):
        read_score(path)


def test_every_file_that_is_opened_is_declared(tmp_path, monkeypatch):
    found, affine = probabilities(SHAPE), affine_of("LPS")
    for where in ("predictions", "ensemble", "validation"):
        folder = tmp_path / where
        scores = lay_out(folder, where, "NibabelIOWithReorient")
        path = write_case(scores, "a", found, affine, "NibabelIOWithReorient")
        opened = set()
        with monkeypatch.context() as patch:
            for name in ("open", "read_text"):
                original = getattr(type(path), name)

                def spy(self, *given, _original=original, _opened=opened, **named):
                    _opened.add(self.resolve())
                    return _original(self, *given, **named)

                patch.setattr(type(path), name, spy)
            read_score(path, (1, 2))
            in_slabs(path, (1, 2))
        assert {place.resolve() for place in files_read(path)} == opened - {path.resolve()}
    assert files_read(tmp_path / "none.npz") == []


# --- cohorts --------------------------------------------------------------------------------------


@pytest.fixture(params=["LPS", "LPI", "PIR"])
def cohorts(tmp_path, request):
    """Two cohorts with the same scores: of a reader that turns images, and as NIfTI."""
    affine = affine_of(request.param)
    turned, plain = [], []
    describe(tmp_path / "turned", "NibabelIOWithReorient")
    (tmp_path / "plain").mkdir()
    for number in range(3):
        name = f"case{number}"
        found = probabilities(SHAPE, seed=number)
        path = write_case(tmp_path / "turned", name, found, affine, "NibabelIOWithReorient")
        raters = []
        for rater in range(2):
            raters.append(tmp_path / f"{name}_rater{rater}.nii.gz")
            marked = np.roll(found[1], rater, axis=0) > 0.4
            write_volume(raters[-1], marked.astype("u1"), affine)
        turned.append(Case(name, path, tuple(raters)))
        plain.append(Case(name, tmp_path / "plain" / f"{name}.nii.gz", tuple(raters)))
        write_volume(plain[-1].score, found[1], affine)
    return turned, plain


@pytest.mark.parametrize("slab", [1, 3, 1000])
def test_fit_apply_and_evaluate_see_what_is_in_the_unturned_file(
    cohorts, tmp_path, monkeypatch, slab
):
    monkeypatch.setattr("twintrack.runs.streaming.SLAB_VOXELS", SHAPE[0] * SHAPE[1] * slab)
    results = []
    for number, cases in enumerate(cohorts):
        folder = tmp_path / str(number)
        _, tally = tally_cohort(cases, TallyJob("all"), folder / "tallies", Settings())
        calibrator = Calibrator(bins=20)
        fitted = fit_cohort(cases, calibrator, TallyJob("box"), folder / "fit")
        assert fitted.failures == []
        assert fitted.notes == {}
        figures = evaluate_cohort(cases, EvaluateJob(millimetres=True), folder / "evaluate")
        assert contradicted(figures.notes) == []
        job = ApplyJob(calibrator, folder / "applied")
        assert [outcome.failure for outcome in apply_cohort(cases, job)] == [None] * 3
        volumes = [read_volume(job.place(case)) for case in cases]
        results.append((tally, calibrator, figures.rows, volumes))
    (tally, calibrator, rows, volumes), (tally2, calibrator2, rows2, volumes2) = results
    assert tally == tally2
    np.testing.assert_array_equal(calibrator.X_thresholds_, calibrator2.X_thresholds_)
    np.testing.assert_array_equal(calibrator.y_thresholds_, calibrator2.y_thresholds_)
    assert rows == rows2
    for volume, other in zip(volumes, volumes2, strict=True):
        np.testing.assert_array_equal(volume.array, other.array)
        np.testing.assert_allclose(volume.affine, other.affine, atol=1e-4)


def contradicted(notes):
    return [case for case, told in notes.items() if any("contradicts" in note for note in told)]


def test_wrong_readers_and_notes_reach_the_user(cohorts, tmp_path):
    turned, _ = cohorts
    folder = turned[0].score.parent
    image = nib.load(folder / "case1.nii.gz")
    labels = np.asarray(image.dataobj).copy()
    voxel = np.unravel_index(read_score(turned[1].score).array.argmax(), SHAPE)
    labels[voxel] = 2
    nib.save(nib.Nifti1Image(labels, image.affine), folder / "case1.nii.gz")
    told = "the segmentation case1.nii.gz contradicts the class probabilities in 1 voxel"

    calibrator = Calibrator(bins=20)
    fitted = fit_cohort(turned, calibrator, TallyJob("all"), tmp_path / "fit")
    assert list(fitted.notes) == ["case1"]
    assert fitted.notes["case1"][0].startswith(told)
    stored = fit_cohort(turned, Calibrator(bins=20), TallyJob("all"), tmp_path / "fit")
    assert stored.notes == fitted.notes
    found = evaluate_cohort(turned, EvaluateJob(), tmp_path / "evaluate")
    assert contradicted(found.notes) == ["case1"]
    found.write(tmp_path, "ours")
    assert told in (tmp_path / "cases.csv").read_text()
    for ending in (".nii.gz", ".mha"):
        job = ApplyJob(calibrator, tmp_path / ending, ending=ending)
        outcomes = apply_cohort(turned, job)
        assert [bool(outcome.entry.result["notes"]) for outcome in outcomes] == [False, True, False]

    assert find_scores(folder).keys() == {"case0", "case1", "case2"}
    describe(folder, "SimpleITKIO")
    found = evaluate_cohort(turned, EvaluateJob(), tmp_path / "wrong")
    assert [failure.file for failure in found.failures] == ["score"] * 3
    with pytest.raises(ValueError, match="none of the 3 cases could be used"):
        fit_cohort(turned, Calibrator(bins=20), TallyJob("all"), tmp_path / "wrong")
