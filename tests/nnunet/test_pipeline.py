"""The pipeline on untrained models, against nnU-Net's own prediction, mean and merge."""

from __future__ import annotations

import gc
import json
import math
import signal
import sys
import threading
import time
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, gaussian_filter

pytest.importorskip("nnunetv2")
torch = pytest.importorskip("torch")

import tiny_models as tiny  # noqa: E402
from device_libraries import InterfaceArray  # noqa: E402
from nnunetv2.imageio.nibabel_reader_writer import NibabelIOWithReorient  # noqa: E402
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO  # noqa: E402

from twintrack.calibration.calibrator import Calibrator  # noqa: E402
from twintrack.ensemble import ensemble_record  # noqa: E402
from twintrack.errors import InputError  # noqa: E402
from twintrack.nnunet import Pipeline, RoiRule  # noqa: E402
from twintrack.nnunet.fair_lock import Turns  # noqa: E402
from twintrack.nnunet.images import as_image, spacing_note  # noqa: E402
from twintrack.nnunet.models import load_model  # noqa: E402
from twintrack.volumes import Volume, read_volume, write_volume  # noqa: E402

pytestmark = pytest.mark.nnunet

FAST: dict[str, Any] = {"device": "cpu", "mirroring": False}
SHAPE = (30, 28, 16)  # x, y, z


def oblique() -> np.ndarray:
    c, s = np.cos(0.2), np.sin(0.2)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    return affine_of(turn @ np.diag([1.5, 1.2, 2.5]))


def affine_of(matrix: Any) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = matrix
    affine[:3, 3] = (11, -23, 57)
    return affine


SLANTING = np.linalg.qr(np.array([[2, 7, 5], [9, -1, 6], [6, 4, -8]]))[0]
AFFINES = {
    "RAS": affine_of(np.diag([1.5, 1.2, 2.5])),
    "LPS": affine_of(np.diag([-1.5, -1.2, 2.5])),
    "flipped z": affine_of(np.diag([1.5, -1.2, -2.5])),
    "oblique": oblique(),
    "sagittal": affine_of([[0, 0, 2.5], [-1.5, 0, 0], [0, -1.2, 0]]),
    # The axes are far from the patient's.
    "slanting": affine_of(SLANTING @ np.diag([-1.5, 1.2, 2.5])),
}


def ct(shape: tuple[int, ...] = SHAPE, seed: int = 0) -> np.ndarray:
    field = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2)
    return np.asfortranarray((200 * field / field.std()).astype(np.int16))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("models")
    return [tiny.write_model(root / str(seed), seed) for seed in range(3)]


def nnunet_probabilities(folder: Path, *image: Path, fold: int = 0) -> np.ndarray:
    """Return what nnU-Net's predictor and export say of a case, axes as its reader gives them."""
    from twintrack.nnunet.models import inspect_folder

    model = load_model(
        inspect_folder(folder, [fold]),
        torch.device("cpu"),
        step=0.5,
        mirroring=False,
        on_device=False,
    )
    array, properties = model.predictor.plans_manager.image_reader_writer_class().read_images(
        [str(file) for file in image]
    )
    return np.asarray(
        model.predictor.predict_single_npy_array(array, properties, None, None, True)[1]
    )


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
    expected = np.mean([nnunet_probabilities(folder, file)[1] for folder in models[:2]], axis=0)
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
    probability = nnunet_probabilities(folder, file)[1].astype(np.float32)
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
        [nnunet_probabilities(folder, file, fold=fold)[1] for fold in (0, 1)], axis=0
    )
    pipeline = Pipeline([folder], **FAST)
    assert pipeline.size == 2
    assert np.abs(pipeline.predict(file).score.array.T - expected).max() < 2e-6


def test_mean_of_logits_is_nnunets_ensemble_of_folds(tmp_path: Path) -> None:
    from twintrack.nnunet.models import inspect_folder

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
    with pytest.raises(
        ValueError, match=r"tumour .*is not given, .*: name .* 0 = pancreas, 1 = tum"
    ):
        Pipeline([folder], **FAST)
    pipeline = Pipeline([folder], tumour=(1,), **FAST)
    assert pipeline.regions
    assert pipeline.tumour_names == "1 = tumour"
    from_files = pipeline.predict(files).score.array
    from_array = pipeline.predict(np.stack(arrays), AFFINES["RAS"]).score.array
    np.testing.assert_array_equal(from_files, from_array)
    with pytest.raises(ValueError, match="1 channels; the networks were trained with 2"):
        pipeline.predict(files[0])
    other = {"background": 0, "tumour": 2, "pancreas": [1, 2]}
    swapped = tiny.write_model(tmp_path / "swapped", labels=other, channels=2)
    with pytest.raises(ValueError, match=r"swapped: regions \('tumour', .* differ from"):
        Pipeline([folder, swapped], tumour=(1,), **FAST)


def rename_channels(folder: Path, key: str, *names: str) -> None:
    dataset = json.loads((folder / "dataset.json").read_text())
    del dataset["channel_names"]
    dataset[key] = {str(number): name for number, name in enumerate(names)}
    (folder / "dataset.json").write_text(json.dumps(dataset))


def test_names_of_channels_may_differ_but_not_their_order(tmp_path: Path) -> None:
    # The names decide the normalisation, of which each member has its own.
    folders = [tiny.write_model(tmp_path / str(seed), seed, channels=2) for seed in range(2)]
    change_plans(folders[1], normalization_schemes=["ZScoreNormalization", "CTNormalization"])
    rename_channels(folders[0], "channel_names", "CT", "CT late")
    rename_channels(folders[1], "modality", "MRI", "CT")
    files = [tmp_path / f"case_000{channel}.nii.gz" for channel in range(2)]
    for channel, file in enumerate(files):
        write_volume(file, ct(seed=channel), AFFINES["RAS"])
    expected = np.mean([nnunet_probabilities(folder, *files)[1] for folder in folders], axis=0)
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
        model = pipeline._coarse
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
    expected = np.mean([nnunet_probabilities(folder, cropped)[1] for folder in models[:2]], axis=0)
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
    means = np.mean([nnunet_probabilities(folder, file) for folder in folders], axis=0)
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


# --- errors before anything runs ----------------------------------------------------------------


def test_errors_of_folders(models: list[Path], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        Pipeline([tmp_path / "nothing"], **FAST)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError) as missing:
        Pipeline([tmp_path / "empty"], **FAST)
    assert "dataset.json" in str(missing.value.filename)
    with pytest.raises(FileNotFoundError, match="no fold has best.pth.*checkpoint_final.pth"):
        Pipeline(models, checkpoint="best.pth", **FAST)
    with pytest.raises(FileNotFoundError, match="no such checkpoint") as missing:
        Pipeline(models, folds=(3,), **FAST)
    assert "fold_3" in str(missing.value.filename)
    for twice in ({"members": [models[0], models[0]]}, {"members": models[:1], "folds": (0, 0)}):
        with pytest.raises(ValueError, match="fold 0 is named twice"):
            Pipeline(**twice, **FAST)
    with pytest.raises(ValueError, match="members is empty"):
        Pipeline([], **FAST)

    broken = tiny.write_model(tmp_path / "broken")
    (broken / "plans.json").write_text("{")
    with pytest.raises(ValueError, match=r"plans.json: not valid JSON"):
        Pipeline([broken], **FAST)
    other = tiny.write_model(tmp_path / "other", labels={"background": 0, "tumour": 1})
    with pytest.raises(ValueError, match="other: labels .* differ from"):
        Pipeline([models[0], other], **FAST)
    two = tiny.write_model(tmp_path / "two", channels=2)
    with pytest.raises(ValueError, match="two: channels .* differ from"):
        Pipeline([models[0], two], **FAST)
    with pytest.raises(ValueError, match="two: channels .* differ from"):
        Pipeline(models, two, **FAST)
    turned = tiny.write_model(tmp_path / "turned", reader="NibabelIOWithReorient")
    for members, coarse in (([models[0], turned], None), (models, turned)):
        with pytest.raises(
            ValueError, match="turned: reads images otherwise .* only .*turned turn"
        ):
            Pipeline(members, coarse, **FAST)
    corrupt = tiny.write_model(tmp_path / "corrupt")
    (corrupt / "fold_0" / "checkpoint_final.pth").write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="corrupt: the model cannot be loaded"):
        Pipeline([corrupt], **FAST)
    coarser = tiny.write_model(tmp_path / "coarser", spacing=(3.0, 3.0, 3.0))
    with pytest.raises(ValueError, match="members on one grid"):
        Pipeline([models[0], coarser], average="logits", **FAST)


def change_plans(folder: Path, **changes: Any) -> Path:
    """Change entries of the configuration; None removes one."""
    plans = json.loads((folder / "plans.json").read_text())
    configuration = plans["configurations"]["3d_fullres"]
    for key, value in changes.items():
        if value is None:
            del configuration[key]
        else:
            configuration[key] = value
    (folder / "plans.json").write_text(json.dumps(plans))
    return folder


NNUNET, TORCH = "resample_data_or_seg_to_shape", "resample_torch_fornnunet"


@pytest.mark.parametrize(
    ("name", "keywords"),
    [
        (NNUNET, {"order": 3}),
        (NNUNET, {}),  # whose order is 3
        (NNUNET, {"order": 1, "is_seg": True}),
        (NNUNET, {"order": 1, "force_separate_z": None, "separate_z_anisotropy_threshold": 2}),
        (NNUNET, {"order": 1, "sharpen": True}),
        (NNUNET, None),
        (TORCH, {"mode": "nearest"}),
        (TORCH, {"separate_z_anisotropy_threshold": 5}),
        ("resample_torch_simple", {}),
    ],
)
def test_unusual_resampling_is_refused(tmp_path: Path, name: str, keywords: Any) -> None:
    folder = change_plans(
        tiny.write_model(tmp_path / "m"),
        resampling_fn_probabilities=name,
        resampling_fn_probabilities_kwargs=keywords,
    )
    with pytest.raises(ValueError, match=rf"plans.json: .* by {name} with .*supported are"):
        Pipeline([folder], **FAST)


@pytest.mark.parametrize(
    ("name", "keywords"),
    [
        (NNUNET, {"order": 1}),
        (NNUNET, {"order": 1, "force_separate_z": True, "separate_z_anisotropy_threshold": 5}),
        (TORCH, {}),
        (TORCH, {"force_separate_z": False, "separate_z_anisotropy_threshold": 5}),
        (TORCH, {"force_separate_z": None, "separate_z_anisotropy_threshold": 3}),
    ],
)
def test_arguments_that_plans_leave_out_have_nnunets_defaults(
    tmp_path: Path, name: str, keywords: dict[str, Any]
) -> None:
    # Slices are resampled on their own, or not, on a grid that is five times as coarse along them.
    folder = change_plans(
        tiny.write_model(tmp_path / "m", spacing=(6.0, 1.2, 1.5)),
        resampling_fn_probabilities=name,
        resampling_fn_probabilities_kwargs=keywords,
    )
    file = tmp_path / "case.nii.gz"
    write_volume(file, ct((30, 28, 24)), AFFINES["RAS"])
    expected = nnunet_probabilities(folder, file)[1]
    assert np.abs(Pipeline([folder], **FAST).predict(file).score.array.T - expected).max() < 2e-6


def test_members_with_statistics_under_their_older_name(tmp_path: Path) -> None:
    key, older = (f"foreground_intensity_properties_{by}" for by in ("per_channel", "by_modality"))
    folders = [tiny.write_model(tmp_path / str(seed), seed) for seed in range(2)]
    for seed, folder in enumerate(folders):
        plans = json.loads((folder / "plans.json").read_text())
        plans[older] = plans.pop(key)
        plans[older]["0"]["mean"] = 300.0 * seed
        (folder / "plans.json").write_text(json.dumps(plans))
    file = tmp_path / "case.nii.gz"
    write_volume(file, ct(), AFFINES["RAS"])
    expected = np.mean([nnunet_probabilities(folder, file)[1] for folder in folders], axis=0)
    assert np.abs(Pipeline(folders, **FAST).predict(file).score.array.T - expected).max() < 2e-6
    del plans[older]
    (folders[1] / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(ValueError, match=rf"plans.json: has no '{key}'"):
        Pipeline(folders, **FAST)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tumour": (3,)}, r"tumour is \(3,\); the members' channels are 1 to 2"),
        ({"tumour": (0,)}, "tumour is"),
        ({"tumour": ()}, "tumour is"),
        ({"within": (1, 3)}, r"within is \(1, 3\); the members' channels are 1 to 2"),
        ({"within": (1, 2, 2)}, r"within is \(1, 2, 2\); it names a channel twice"),
        ({"within": (2,)}, r"within is \(2,\) without all of tumour, \(1,\)"),
        ({"threshold": 1.5}, "threshold is 1.5"),
        ({"step": 0.0}, "step is 0.0"),
        ({"average": "votes"}, "average is 'votes'"),
        ({"coarse_spacing": (1, 2)}, "coarse_spacing is"),
        ({"coarse_spacing": (1, math.nan, 1)}, "coarse_spacing is"),
        ({"mirroring": "no"}, "mirroring is 'no'"),
        ({"folds": "all"}, "folds is 'all'; it is a sequence"),
        ({"device": "cuda:99"}, "not available here"),
        ({"device": "abacus"}, "device is 'abacus'"),
    ],
)
def test_errors_of_arguments(models: list[Path], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Pipeline(models, **{**FAST, **settings})


@pytest.mark.parametrize(
    "record",
    [
        ensemble_record(3, (1, 2), "probabilities"),
        ensemble_record(3, (1,), "logits"),
        ensemble_record(2, (1,), "probabilities"),
    ],
)
def test_calibrator_of_another_ensemble_is_refused(
    models: list[Path], record: dict[str, Any]
) -> None:
    scores = np.linspace(0, 1, 100, dtype=np.float32)
    calibrator = Calibrator(bins=5, ensemble=record).fit(scores, [scores > 0.5])
    with pytest.raises(ValueError, match="the calibrator was fitted on scores of an ensemble with"):
        Pipeline(models, calibrator=calibrator, **FAST)


def test_a_pipeline_is_made_whatever_backend_is_forced(
    models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its checks compute nothing: on a CUDA device, all that is computed is there.
    scores = np.linspace(0, 1, 100, dtype=np.float32)
    calibrator = Calibrator(bins=5).fit(scores, [scores > 0.5])
    monkeypatch.setenv("TWINTRACK_BACKEND", "cuda")
    assert Pipeline(models, calibrator=calibrator, **FAST).size == len(models)


@pytest.mark.parametrize("calibrator", [Calibrator(), {"x": [0, 1]}, lambda score: score])
def test_calibrators_without_a_map_are_refused(models: list[Path], calibrator: Any) -> None:
    with pytest.raises(TypeError, match="calibrator is .*; it must have a map"):
        Pipeline(models, calibrator=calibrator, **FAST)


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

    nib.save(nib.Nifti1Image(np.zeros((8, 8, 8, 2), np.int16), np.eye(4)), tmp_path / "4d.nii.gz")
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


# --- running ------------------------------------------------------------------------------------


def test_out_of_device_memory_falls_back_once_and_says_so(
    models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    calls: list[bool] = []
    real = nnUNetPredictor._internal_predict_sliding_window_return_logits

    def scarce(self: Any, data: Any, slicers: Any, do_on_device: bool = True) -> Any:
        calls.append(do_on_device)
        if do_on_device:
            raise torch.cuda.OutOfMemoryError("no room")
        return real(self, data, slicers, do_on_device)

    monkeypatch.setattr(nnUNetPredictor, "_internal_predict_sliding_window_return_logits", scarce)
    pipeline = Pipeline(models[:1], **FAST)
    plain = pipeline.predict(ct(), AFFINES["RAS"])
    pipeline._members[0].predictor.perform_everything_on_device = True
    with pytest.warns(UserWarning, match="added up on the CPU from now on"):
        fallen = pipeline.predict(ct(), AFFINES["RAS"])
    again = pipeline.predict(ct(), AFFINES["RAS"])
    assert calls == [False, True, False, False]
    np.testing.assert_array_equal(fallen.score.array, plain.score.array)
    np.testing.assert_array_equal(again.score.array, plain.score.array)

    def hopeless(self: Any, data: Any, slicers: Any, do_on_device: bool = True) -> Any:
        raise torch.cuda.OutOfMemoryError("no room")

    monkeypatch.setattr(nnUNetPredictor, "_internal_predict_sliding_window_return_logits", hopeless)
    with pytest.raises(MemoryError, match="does not fit"):
        pipeline.predict(ct(), AFFINES["RAS"])


def images_given(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[Any]]:
    """Return what refers to the images that nnU-Net's sliding window is given from now on."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    real = nnUNetPredictor._internal_predict_sliding_window_return_logits
    given: list[weakref.ref[Any]] = []

    def record(self: Any, data: Any, slicers: Any, do_on_device: bool = True) -> Any:
        given.append(weakref.ref(data))
        return real(self, data, slicers, do_on_device)

    monkeypatch.setattr(nnUNetPredictor, "_internal_predict_sliding_window_return_logits", record)
    return given


@pytest.mark.parametrize("after", [0, 2])  # patches that still find room
def test_a_full_device_leaves_no_image_and_no_thread(
    models: list[Path], monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    pipeline = Pipeline(models[:1], **FAST)
    plain = pipeline.predict(ct(), AFFINES["RAS"]).score.array
    given = images_given(monkeypatch)
    predictor = pipeline._members[0].predictor
    network = predictor._internal_maybe_mirror_and_predict
    calls: list[int] = []

    def scarce(patch: Any) -> Any:
        calls.append(len(given))
        if len(given) <= 3 and calls.count(len(given)) > after:
            raise torch.cuda.OutOfMemoryError("no room")
        return network(patch)

    monkeypatch.setattr(predictor, "_internal_maybe_mirror_and_predict", scarce)
    monkeypatch.setattr(pipeline, "_make_room", lambda: True)
    threads = threading.enumerate()
    found = pipeline.predict(ct(), AFFINES["RAS"]).score.array
    np.testing.assert_array_equal(found, plain)
    assert [calls.count(attempt) for attempt in (1, 2, 3)] == [after + 1] * 3
    assert calls.count(4) > 4  # or nothing would have waited
    assert threading.enumerate() == threads
    gc.collect()
    assert len(given) == 4
    assert all(image() is None for image in given)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("after", [0, 2])
def test_a_patch_without_room_is_a_full_device_not_the_end_of_all_progress(
    models: list[Path], monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    pipeline = Pipeline(models[:1], **FAST)
    plain = pipeline.predict(ct(), AFFINES["RAS"]).score.array
    given = images_given(monkeypatch)
    real, clones = torch.clone, []

    def scarce(tensor: Any, **keywords: Any) -> Any:
        clones.append(len(given))
        if len(given) == 1 and len(clones) > after:
            raise torch.cuda.OutOfMemoryError("no room")
        return real(tensor, **keywords)

    monkeypatch.setattr(torch, "clone", scarce)
    monkeypatch.setattr(pipeline, "_make_room", lambda: True)
    found = pipeline.predict(ct(), AFFINES["RAS"]).score.array
    np.testing.assert_array_equal(found, plain)
    assert clones.count(1) == after + 1
    assert len(given) == 2


def test_compiled_networks_and_the_number_of_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # nnUNet_compile=1 wraps the network; its weights are then loaded elsewhere.
    folder = tiny.write_model(tmp_path / "m", folds=(0, 1))
    plain = Pipeline([folder], **FAST).predict(ct(), AFFINES["RAS"])
    pipeline = Pipeline([folder], **FAST)
    predictor = pipeline._members[0].predictor
    predictor.network = torch.compile(predictor.network, backend="eager")
    threads = torch.get_num_threads()
    with torch.compiler.set_stance("force_eager"):
        compiled = pipeline.predict(ct(), AFFINES["RAS"])
    np.testing.assert_array_equal(compiled.score.array, plain.score.array)

    def fail(data: Any) -> Any:
        assert torch.get_num_threads() <= threads
        torch.set_num_threads(threads + 1)
        raise KeyboardInterrupt

    monkeypatch.setattr(predictor, "predict_sliding_window_return_logits", fail)
    with pytest.raises(KeyboardInterrupt):
        pipeline.predict(ct(), AFFINES["RAS"])
    assert torch.get_num_threads() == threads


# --- logits that stay on the device ---------------------------------------------------------------


class OnDevice(InterfaceArray):
    """A result of the sliding window that says that it lies on a device.

    Only what the pipeline makes of it on the device may come to the host, and what is `fetched`.
    """

    fetched: ClassVar[list[tuple[int, ...]]] = []

    @property
    def __cuda_array_interface__(self) -> Any:
        return super().__cuda_array_interface__

    def cpu(self) -> Any:
        self.fetched.append(self.shape)
        return torch.from_numpy(self.values.copy())

    def __array__(self, *arguments: Any, **keywords: Any) -> Any:
        raise AssertionError("read by NumPy without being fetched")

    def __array_namespace__(self) -> Any:
        return SimpleNamespace(
            float32="float32", zeros=lambda shape, dtype, device: OnDevice(np.zeros(shape, dtype))
        )

    def __init__(self, values: Any, device: int = 0) -> None:
        super().__init__(values, device, maker=False)


@pytest.fixture
def device_windows(monkeypatch: pytest.MonkeyPatch, emulation: Any) -> type[OnDevice]:
    """Sliding windows whose results lie on the emulated device, if they are asked to be there."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    real = nnUNetPredictor._internal_predict_sliding_window_return_logits

    def on_device(self: Any, data: Any, slicers: Any, do_on_device: bool = True) -> Any:
        found = real(self, data, slicers, False)
        return OnDevice(found.numpy()) if do_on_device else found

    monkeypatch.setattr(
        nnUNetPredictor, "_internal_predict_sliding_window_return_logits", on_device
    )
    monkeypatch.setattr(OnDevice, "fetched", [])
    return OnDevice


def on_device(pipeline: Pipeline) -> Pipeline:
    for model in pipeline._members:
        model.predictor.perform_everything_on_device = True
    return pipeline


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_logits_stay_on_the_device(
    models: list[Path], device_windows: type[OnDevice], average: Any
) -> None:
    scores = np.linspace(0, 1, 1000, dtype=np.float32)
    calibrator = Calibrator(bins=20).fit(scores, [scores > 0.4])
    coarse = tiny.write_model(models[0].parent / f"coarse {average}", favour={1: 50.0})
    settings: dict[str, Any] = {**FAST, "average": average, "calibrator": calibrator}
    plain = Pipeline(models, coarse, **settings).predict(ct(), AFFINES["oblique"])
    assert not device_windows.fetched
    found = on_device(Pipeline(models, coarse, **settings)).predict(ct(), AFFINES["oblique"])
    np.testing.assert_array_equal(found.score.array, plain.score.array)
    np.testing.assert_array_equal(found.mask.array, plain.mask.array)
    assert found.notes == ()
    # The calibrated region, once, and nothing else.
    assert device_windows.fetched == [tuple(part.stop - part.start for part in found.roi.box[::-1])]
    assert found.score.array.std() > 0.01


@pytest.mark.parametrize("why", ["no module", "forced"])
def test_logits_go_to_the_host_where_the_device_does_not_export(
    models: list[Path],
    device_windows: type[OnDevice],
    monkeypatch: pytest.MonkeyPatch,
    why: str,
) -> None:
    plain = Pipeline(models, **FAST).predict(ct(), AFFINES["RAS"])
    if why == "forced":
        monkeypatch.setenv("TWINTRACK_BACKEND", "cpu")
    else:
        monkeypatch.setitem(sys.modules, "twintrack._cuda", None)
    found = on_device(Pipeline(models, **FAST)).predict(ct(), AFFINES["RAS"])
    np.testing.assert_array_equal(found.score.array, plain.score.array)
    assert found.notes == ()
    assert [len(shape) for shape in device_windows.fetched] == [4] * len(models)


@pytest.mark.parametrize("members", [1, 3])
def test_a_device_without_memory_for_the_export_leaves_it_to_the_cpu(
    models: list[Path],
    device_windows: type[OnDevice],
    monkeypatch: pytest.MonkeyPatch,
    members: int,
) -> None:
    plain = Pipeline(models[:members], within=(1, 2), **FAST).predict(ct(), AFFINES["LPS"])
    monkeypatch.setenv("TWINTRACK_EMULATION", "memory=100")
    pipeline = on_device(Pipeline(models[:members], within=(1, 2), **FAST))
    with pytest.warns(UserWarning, match="cannot export this case, the CPU does .* bytes of mem"):
        found = pipeline.predict(ct(), AFFINES["LPS"])
    assert len(found.notes) == 1
    np.testing.assert_array_equal(found.score.array, plain.score.array)
    monkeypatch.delenv("TWINTRACK_EMULATION")
    assert pipeline.predict(ct(), AFFINES["LPS"]).notes == ()  # the next case is done there again


def test_a_full_device_gives_up_logits_before_it_gives_up_adding(
    models: list[Path], device_windows: type[OnDevice], monkeypatch: pytest.MonkeyPatch
) -> None:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    plain = Pipeline(models, **FAST).predict(ct(), AFFINES["RAS"])
    real = nnUNetPredictor._internal_predict_sliding_window_return_logits
    attempts: list[bool] = []
    full: set[int] = {2}  # attempts for which there is no room

    def scarce(self: Any, data: Any, slicers: Any, do_on_device: bool = True) -> Any:
        attempts.append(do_on_device)
        if len(attempts) in full:
            raise torch.cuda.OutOfMemoryError("no room")
        return real(self, data, slicers, do_on_device)

    monkeypatch.setattr(nnUNetPredictor, "_internal_predict_sliding_window_return_logits", scarce)
    pipeline = on_device(Pipeline(models, **FAST))
    # The second member finds room once the first one's logits are gone, and the others join them.
    found = pipeline.predict(ct(), AFFINES["RAS"])
    assert attempts == [True] * 4
    assert found.notes == ()
    np.testing.assert_array_equal(found.score.array, plain.score.array)
    # It finds none: that model's windows are added up on the CPU from then on.
    attempts.clear()
    full |= {3}
    with pytest.warns(UserWarning, match="added up on the CPU from now on"):
        found = pipeline.predict(ct(), AFFINES["RAS"])
    assert attempts == [True, True, True, False, True]
    np.testing.assert_array_equal(found.score.array, plain.score.array)


def test_logits_of_many_cases_on_the_device(
    models: list[Path], device_windows: type[OnDevice]
) -> None:
    images = [(str(seed), as_image(ct(seed=seed), np.eye(4))) for seed in range(3)]
    plain = Pipeline(models[:2], **FAST)
    pipeline = on_device(Pipeline(models[:2], **FAST))
    outcomes = dict(pipeline.predict_many(images, lambda _, prediction: prediction.score.array))
    for name, image in images:
        np.testing.assert_array_equal(outcomes[name], plain.predict(image).score.array)
    assert len(device_windows.fetched) == len(images)


def test_many_cases_are_as_single_ones_in_order_with_failures_reported(
    models: list[Path], tmp_path: Path
) -> None:
    pipeline = Pipeline(models[:1], **FAST)
    images: list[tuple[str, Any]] = []
    for seed in range(3):
        file = tmp_path / f"{seed}.nii.gz"
        write_volume(file, ct(seed=seed), AFFINES["LPS"])
        images.append((str(seed), file))
    images.insert(1, ("broken", tmp_path / "nothing.nii.gz"))
    finished: list[str] = []

    def finish(name: str, prediction: Any) -> Volume:
        finished.append(name)
        if name == "2":
            raise OSError("disk full")
        return prediction.score

    told: list[tuple[str, str]] = []
    outcomes = dict(pipeline.predict_many(images, finish, lambda *stage: told.append(stage)))
    begun = [(name, "preprocess") for name in ("0", "broken", "1", "2")]
    assert [stage for stage in told if stage in begun] == begun
    assert [name for name, stage in told if stage == "member 1 of 1"] == ["0", "1", "2"]
    assert told[-1] == ("2", "export")
    assert list(outcomes) == ["0", "broken", "1", "2"]
    assert finished == ["0", "1", "2"]
    assert isinstance(outcomes["broken"], FileNotFoundError)
    assert isinstance(outcomes["2"], OSError)
    for name, file in (("0", images[0][1]), ("1", images[2][1])):
        one = outcomes[name]
        assert isinstance(one, Volume)
        np.testing.assert_array_equal(one.array, pipeline.predict(file).score.array)


def test_errors_that_are_kept_hold_no_images(
    models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A run keeps all of its errors: a hundred failed cases would be in memory together.
    pipeline = Pipeline(models[:1], **FAST)
    held: list[weakref.ref[Any]] = []

    def image(array: np.ndarray) -> Any:
        held.append(weakref.ref(array))
        return as_image(array, np.eye(4))

    def full(data: Any, index: int, make_room: Any) -> Any:
        held.append(weakref.ref(data))
        try:
            raise RuntimeError("no room")
        except RuntimeError as error:
            raise MemoryError("a patch does not fit") from error

    monkeypatch.setattr(pipeline._members[0], "logits", full)
    empty = np.zeros((9, 9, 9), np.int16)
    cases = [("empty", lambda: image(empty.copy())), ("full", lambda: image(ct().copy()))]
    errors = dict(pipeline.predict_many(cases, lambda *_: None))
    assert [type(error) for error in errors.values()] == [InputError, MemoryError]
    gc.collect()
    assert len(held) == 3
    assert all(one() is None for one in held)


def test_at_most_three_cases_are_held(models: list[Path]) -> None:
    pipeline = Pipeline(models[:1], **FAST)
    begun, ended = [], []

    def cases() -> Any:
        for seed in range(6):
            begun.append(seed)
            assert len(begun) - len(ended) <= 3
            yield str(seed), as_image(np.asarray(ct((12, 12, 12), seed)), np.eye(4))

    def finish(name: str, prediction: Any) -> None:
        time.sleep(0.05)
        ended.append(name)

    assert len(list(pipeline.predict_many(cases(), finish))) == 6


def test_turns_are_given_in_order() -> None:
    # With an ordinary lock the main thread, which asks again at once, would win every time.
    turns, order = Turns(), []

    def other() -> None:
        with turns:
            order.append("other")

    thread = threading.Thread(target=other)
    with turns:
        thread.start()
        while not turns._waiting:
            time.sleep(0.001)
    with turns:
        order.append("main")
    thread.join()
    assert order == ["other", "main"]


def test_an_interrupted_wait_for_a_turn_leaves_no_place_in_the_queue() -> None:
    # The turn would be given to nobody, and the pipeline of a notebook never run again.
    turns, begun, ended = Turns(), threading.Event(), threading.Event()

    def other() -> None:
        with turns:
            begun.set()
            while not turns._waiting:
                time.sleep(0.001)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            ended.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    begun.wait(10)
    with pytest.raises(KeyboardInterrupt), turns:
        pass
    ended.set()
    thread.join()
    assert not turns._waiting
    assert not turns._taken
