"""The pipeline on untrained models, against nnU-Net's own prediction, mean and merge."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

pytest.importorskip("nnunetv2")
torch = pytest.importorskip("torch")

import tiny_models as tiny  # noqa: E402
from nnunetv2.imageio.nibabel_reader_writer import NibabelIOWithReorient  # noqa: E402
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO  # noqa: E402
from tiny_images import AFFINES, SHAPE, ct  # noqa: E402

from twintrack.calibration.calibrator import Calibrator  # noqa: E402
from twintrack.ensemble import ensemble_record  # noqa: E402
from twintrack.nnunet import Pipeline, RoiRule  # noqa: E402
from twintrack.nnunet.images import spacing_note  # noqa: E402
from twintrack.nnunet.models import load_model  # noqa: E402
from twintrack.volumes import read_volume, write_volume  # noqa: E402

pytestmark = pytest.mark.nnunet

FAST: dict[str, Any] = {"device": "cpu", "mirroring": False}


@pytest.mark.parametrize(
    ("name", "suffix"), [*((name, ".nii.gz") for name in AFFINES), ("oblique", ".mha")]
)
def test_score_is_nnunets_own_mean(
    models: list[Path], tmp_path: Path, name: str, suffix: str
) -> None:
    # SimpleITK's reading, nnU-Net's preprocessing, prediction and export are the reference: an axis
    # exchanged or flipped, a spacing in the wrong order, shows as a difference of tenths.
    file = tmp_path / f"case_0000{suffix}"
    write_volume(file, ct(), AFFINES[name])
    prediction = Pipeline(models[:2], **FAST).predict(file)
    expected = np.mean(
        [tiny.nnunet_probabilities(folder, file)[1] for folder in models[:2]], axis=0
    )
    assert expected.std() > 0.01
    assert prediction.score.array.shape == SHAPE
    assert np.abs(prediction.score.array.T - expected).max() < 2e-6
    np.testing.assert_allclose(prediction.score.affine, AFFINES[name], atol=1e-5)
    np.testing.assert_array_equal(prediction.mask.array, prediction.score.array > 0.5)


@pytest.mark.parametrize("library", ["Nibabel", "SimpleITK"])
@pytest.mark.parametrize("name", AFFINES)
def test_reorienting_reader(tmp_path: Path, name: str, library: str) -> None:
    folder = tiny.write_model(tmp_path / "m", reader=f"{library}IOWithReorient")
    file = tmp_path / "case_0000.nii.gz"
    write_volume(file, ct(), AFFINES[name])
    prediction = Pipeline([folder], **FAST).predict(file)
    probability = tiny.nnunet_probabilities(folder, file)[1].astype(np.float32)
    # nnU-Net's writer turns its segmentation back; it does so for any array.
    reader = NibabelIOWithReorient()
    _, properties = reader.read_images([str(file)])
    expected_file = tmp_path / "expected.nii.gz"
    import nibabel as nib
    from nibabel.orientations import io_orientation, ornt_transform

    turned = nib.Nifti1Image(
        probability.transpose(2, 1, 0), properties["nibabel_stuff"]["reoriented_affine"]
    )
    back = ornt_transform(io_orientation(turned.affine), io_orientation(AFFINES[name]))
    nib.save(turned.as_reoriented(back), expected_file)
    expected = np.asarray(nib.load(expected_file).dataobj)
    assert np.abs(prediction.score.array - expected).max() < 2e-6


def test_folds_of_one_folder_and_transposed_plans(tmp_path: Path) -> None:
    folder = tiny.write_model(
        tmp_path / "m", folds=(0, 1), spacing=(1.6, 2.2, 1.4), transpose=(1, 0, 2)
    )
    file = tmp_path / "case.nii.gz"
    write_volume(file, ct(), AFFINES["LPS"])
    expected = np.mean(
        [tiny.nnunet_probabilities(folder, file, fold=fold)[1] for fold in (0, 1)], axis=0
    )
    pipeline = Pipeline([folder], **FAST)
    assert pipeline.size == 2
    assert np.abs(pipeline.predict(file).score.array.T - expected).max() < 2e-6


def test_mean_of_logits_is_nnunets_ensemble_of_folds(tmp_path: Path) -> None:
    from twintrack.nnunet.trained_folder import inspect_folder

    folder = tiny.write_model(tmp_path / "m", folds=(0, 1))
    file = tmp_path / "case.nii.gz"
    write_volume(file, ct(), AFFINES["LPS"])
    model = load_model(
        inspect_folder(folder), torch.device("cpu"), step=0.5, mirroring=False, on_device=False
    )
    array, properties = SimpleITKIO().read_images([str(file)])
    expected = model.predictor.predict_single_npy_array(array, properties, None, None, True)[1][1]
    prediction = Pipeline([folder], average="logits", **FAST).predict(file)
    assert np.abs(prediction.score.array.T - expected).max() < 2e-6


def test_regions_channels_and_torch_tensors_of_an_array(tmp_path: Path) -> None:
    labels = {"background": 0, "pancreas": [1, 2], "tumour": 2}
    folder = tiny.write_model(tmp_path / "m", labels=labels, channels=2)
    files = [tmp_path / f"case_000{channel}.nii.gz" for channel in range(2)]
    arrays = [ct(seed=channel) for channel in range(2)]
    for file, array in zip(files, arrays, strict=True):
        write_volume(file, array, AFFINES["RAS"])
    pipeline = Pipeline([folder], tumour=(1,), **FAST)
    from_files = pipeline.predict(files).score.array
    from_array = pipeline.predict(np.stack(arrays), AFFINES["RAS"]).score.array
    np.testing.assert_array_equal(from_files, from_array)
    with pytest.raises(ValueError, match="1 channels; the networks were trained with 2"):
        pipeline.predict(files[0])


def rename_channels(folder: Path, key: str, *names: str) -> None:
    dataset = json.loads((folder / "dataset.json").read_text())
    del dataset["channel_names"]
    dataset[key] = {str(number): name for number, name in enumerate(names)}
    (folder / "dataset.json").write_text(json.dumps(dataset))


def test_names_of_channels_may_differ_but_not_their_order(tmp_path: Path) -> None:
    # The names decide the normalisation, of which each member has its own.
    folders = [tiny.write_model(tmp_path / str(seed), seed, channels=2) for seed in range(2)]
    tiny.change_plans(folders[1], normalization_schemes=["ZScoreNormalization", "CTNormalization"])
    rename_channels(folders[0], "channel_names", "CT", "CT late")
    rename_channels(folders[1], "modality", "MRI", "CT")
    files = [tmp_path / f"case_000{channel}.nii.gz" for channel in range(2)]
    for channel, file in enumerate(files):
        write_volume(file, ct(seed=channel), AFFINES["RAS"])
    expected = np.mean([tiny.nnunet_probabilities(folder, *files)[1] for folder in folders], axis=0)
    found = Pipeline(folders, **FAST).predict(files).score.array
    assert np.abs(found.T - expected).max() < 2e-6
    rename_channels(folders[0], "channel_names", "CT", "MRI")
    with pytest.raises(
        ValueError, match=r"1: channels \('MRI', 'CT'\) differ from \('CT', 'MRI'\)"
    ):
        Pipeline(folders, **FAST)


def test_region_and_calibrator(models: list[Path], tmp_path: Path) -> None:
    # The coarse network says organ everywhere, so with a generous margin the region is everything
    # and the result that of no coarse network; the map is applied inside it.
    file = tmp_path / "case.nii.gz"
    write_volume(file, ct(), AFFINES["oblique"])
    everywhere = tiny.write_model(tmp_path / "all", favour={1: 50.0}, spacing=(9.0, 4.5, 4.5))
    nowhere = tiny.write_model(tmp_path / "none", favour={0: 50.0}, spacing=(9.0, 4.5, 4.5))
    plain = Pipeline(models[:1], **FAST).predict(file)
    with_region = Pipeline(models[:1], everywhere, **FAST).predict(file)
    assert with_region.roi.found
    assert with_region.notes == ()
    np.testing.assert_array_equal(with_region.score.array, plain.score.array)

    rng = np.random.default_rng(0)
    scores = rng.random(10000, np.float32)
    record = ensemble_record(1, (1,), "probabilities")
    calibrator = Calibrator(bins=20, ensemble=record).fit(scores, [rng.random(10000) < scores**3])
    calibrator.save(tmp_path / "map.json")
    calibrated = Pipeline(models[:1], calibrator=tmp_path / "map.json", **FAST).predict(file)
    assert np.abs(calibrated.score.array - calibrator.transform(plain.score.array)).max() < 1e-6
    volume = calibrated.score.array.sum(dtype=np.float64)
    assert calibrated.predicted_volume == pytest.approx(volume, abs=1e-4)
    assert calibrated.interval is None

    pipeline = Pipeline(models[:1], nowhere, **FAST)
    with pytest.warns(UserWarning, match="finds no organ"):
        missed = pipeline.predict(file)
    assert not missed.roi.found
    np.testing.assert_array_equal(missed.score.array, plain.score.array)
    strict = Pipeline(models[:1], nowhere, roi=RoiRule(missing="error"), **FAST)
    with pytest.raises(ValueError, match="case.nii.gz.*finds no organ"):
        strict.predict(file)


class Blob:
    """Stands for a coarse network that finds a box given in mm from the image's first corner."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, pipeline: Pipeline, where: Any) -> None:
        model = pipeline.networks.coarse
        assert model is not None
        heads = len(model.folder.outputs)

        def logits(data: Any, index: int, make_room: Any) -> Any:
            shape = data.shape[1:]
            out = torch.zeros((heads, *shape))
            out[0] = 1
            out[(2, *where(shape))] = 5
            return out

        monkeypatch.setattr(model, "logits", logits)


@pytest.mark.parametrize("name", ["RAS", "LPS", "sagittal"])
def test_box_follows_the_organ_and_outside_is_zero(
    models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    # The crop is predicted exactly as nnU-Net would predict the cropped image alone.
    file = tmp_path / "case.nii.gz"
    image = ct()
    write_volume(file, image, AFFINES[name])
    rule = RoiRule(margins=(3.0, 3.0, 3.0), minimum_volume=0.1)
    pipeline = Pipeline(
        models[:2], models[2], roi=rule, coarse_spacing=(3.0, 3.0, 5.0), organ=(2,), **FAST
    )
    # A quarter of each axis of the network's grid (z, y, x): half of it in the middle.
    Blob(
        monkeypatch,
        pipeline,
        lambda shape: tuple(slice(n // 4, 3 * n // 4) for n in shape),
    )
    prediction = pipeline.predict(file)
    spacing = np.linalg.norm(AFFINES[name][:3, :3], axis=0)
    for part, length, size in zip(prediction.roi.box, SHAPE, spacing, strict=True):
        # A grid of some 10 voxels or more rounds the quarter by a voxel of at most 5 mm, and the
        # rounding of the resampled shape adds half a voxel.
        margin = 3.0 / size
        assert abs(part.start - (length / 4 - margin)) < 1 + 8.0 / size
        assert abs(part.stop - (3 * length / 4 + margin)) < 1 + 8.0 / size
    outside = np.ones(SHAPE, bool)
    outside[prediction.roi.box] = False
    assert outside.any()
    assert not prediction.score.array[outside].any()
    cropped = tmp_path / "crop.nii.gz"
    write_volume(cropped, image[prediction.roi.box], AFFINES[name])
    expected = np.mean(
        [tiny.nnunet_probabilities(folder, cropped)[1] for folder in models[:2]], axis=0
    )
    assert np.abs(prediction.score.array[prediction.roi.box].T - expected).max() < 2e-6


def test_dilation_zeroes_what_is_far_from_the_organ(
    models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = RoiRule(margins=(20.0, 20.0, 20.0), minimum_volume=0.0, dilation=4.0)
    pipeline = Pipeline(models[:1], models[1], roi=rule, coarse_spacing=None, organ=(2,), **FAST)
    Blob(
        monkeypatch,
        pipeline,
        lambda shape: tuple(slice(n // 2, n // 2 + 2) for n in shape),
    )
    prediction = pipeline.predict(ct(), AFFINES["LPS"])
    inside = prediction.roi.inside
    assert inside is not None
    assert inside.shape == prediction.roi.shape
    assert 0 < inside.mean() < 0.5
    score = prediction.score.array[prediction.roi.box]
    assert not score[~inside].any()
    assert (score[inside] > 0).all()


@pytest.mark.parametrize("name", ["LPS", "sagittal"])
def test_score_is_zero_beyond_the_organ_that_the_members_see(tmp_path: Path, name: str) -> None:
    # As PANORAMA's baseline zeroes PDAC outside of its merged labels, dilated by a cube of 5.
    folders = [tiny.write_model(tmp_path / str(seed), seed, favour={0: 2.5}) for seed in (5, 6)]
    file = tmp_path / "case.nii.gz"
    image = ct()
    image[:4] = 0  # which nnU-Net crops: no network is asked there
    write_volume(file, image, AFFINES[name])
    plain = Pipeline(folders, **FAST).predict(file).score.array
    found = Pipeline(folders, within=(1, 2), **FAST).predict(file)
    means = np.mean([tiny.nnunet_probabilities(folder, file) for folder in folders], axis=0)
    organ = (means[1] + means[2]).T > 0.5
    assert 0.02 < organ.mean() < 0.5
    near = binary_dilation(organ, np.ones((5, 5, 5)))
    near[:4] = False
    assert 0.1 < near.mean() < 0.8
    np.testing.assert_array_equal(found.score.array, np.where(near, plain, 0))
    inside = np.zeros(SHAPE, bool)
    inside[found.roi.box] = found.roi.inside
    np.testing.assert_array_equal(inside, near)
    nothing = [tiny.write_model(tmp_path / "none", favour={0: 50.0})]
    with pytest.warns(UserWarning, match=r"case.nii.gz: the members find no organ .*\(1, 2\)"):
        empty = Pipeline(nothing, within=(1, 2), **FAST).predict(file)
    assert not empty.score.array.any()


def test_errors_of_images(models: list[Path], tmp_path: Path) -> None:
    pipeline = Pipeline(models[:1], **FAST)
    with pytest.raises(FileNotFoundError):
        pipeline.predict(tmp_path / "nothing.nii.gz")
    corrupt = tmp_path / "corrupt.nii.gz"
    corrupt.write_bytes(b"\x1f\x8bgarbage")
    with pytest.raises(ValueError, match=r"corrupt\.nii\.gz"):
        pipeline.predict(corrupt)
    with pytest.raises(ValueError, match="2 channels; the networks were trained with 1"):
        pipeline.predict(np.zeros((2, 8, 8, 8), np.int16), np.eye(4))
    with pytest.raises(ValueError, match="0 everywhere"):
        pipeline.predict(np.zeros((8, 8, 8), np.int16), np.eye(4))
    hole = ct().astype(np.float32)
    hole[3, 4, 5] = np.nan
    with pytest.raises(ValueError, match=r"voxel \(3, 4, 5\) is nan"):
        pipeline.predict(hole, np.eye(4))
    with pytest.raises(ValueError, match="affine is"):
        pipeline.predict(ct(), np.zeros((4, 4)))
    import nibabel as nib

    for dtype in (np.int16, np.float32):
        image = nib.Nifti1Image(np.zeros((8, 8, 8, 2), dtype), np.eye(4))
        nib.save(image, tmp_path / "4d.nii.gz")
        with pytest.raises(ValueError, match=r"4d\.nii\.gz.*one 3-D volume is needed"):
            pipeline.predict(tmp_path / "4d.nii.gz")


@pytest.mark.parametrize("pixdim", [2.5, 2.51, 5.0])
def test_a_header_with_two_voxel_sizes_gets_a_note(tmp_path: Path, pixdim: float) -> None:
    import nibabel as nib
    from nnunetv2.imageio.nibabel_reader_writer import NibabelIO

    image = nib.Nifti1Image(ct(), None)
    image.header.set_sform(AFFINES["LPS"], 1)
    image.header["pixdim"][1:4] = 1.5, 1.2, pixdim
    file = tmp_path / "case.nii.gz"
    nib.save(image, file)
    for reader in (SimpleITKIO(), NibabelIO()):
        assert math.isclose(reader.read_images([str(file)])[1]["spacing"][0], pixdim, rel_tol=1e-6)
    note = spacing_note(read_volume(file))
    if pixdim < 5:
        assert note is None
    else:
        assert note is not None
        assert "case.nii.gz: its header gives voxels of 1.5 x 1.2 x 2.5 mm" in note
        assert "1.5 x 1.2 x 5 mm by pixdim" in note
        with pytest.warns(UserWarning, match="1.5 x 1.2 x 5 mm by pixdim"):
            Pipeline([tiny.write_model(tmp_path / "m")], **FAST).predict(file)


def test_images_smaller_than_a_patch_and_than_a_voxel_of_the_coarse_network(
    models: list[Path], tmp_path: Path
) -> None:
    coarse = tiny.write_model(tmp_path / "c", favour={1: 50.0}, spacing=(9.0, 4.5, 4.5))
    rule = RoiRule(minimum_volume=0.0)
    prediction = Pipeline(models[:1], coarse, roi=rule, **FAST).predict(
        ct((7, 5, 2)), np.diag([0.7, 0.7, 1.0, 1])
    )
    assert prediction.score.array.shape == (7, 5, 2)
    assert prediction.roi.found
