"""Trained folders that nnU-Net loads, or cannot load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("nnunetv2")
pytest.importorskip("torch")

import tiny_models as tiny
from tiny_images import AFFINES, ct

from twintrack.nnunet import Pipeline
from twintrack.volumes import write_volume

pytestmark = pytest.mark.nnunet

FAST: dict[str, Any] = {"device": "cpu", "mirroring": False}


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
    folder = tiny.change_plans(
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
    folder = tiny.change_plans(
        tiny.write_model(tmp_path / "m", spacing=(6.0, 1.2, 1.5)),
        resampling_fn_probabilities=name,
        resampling_fn_probabilities_kwargs=keywords,
    )
    file = tmp_path / "case.nii.gz"
    write_volume(file, ct((30, 28, 24)), AFFINES["RAS"])
    expected = tiny.nnunet_probabilities(folder, file)[1]
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
    expected = np.mean([tiny.nnunet_probabilities(folder, file)[1] for folder in folders], axis=0)
    assert np.abs(Pipeline(folders, **FAST).predict(file).score.array.T - expected).max() < 2e-6
    del plans[older]
    (folders[1] / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(ValueError, match=rf"plans.json: has no '{key}'"):
        Pipeline(folders, **FAST)


def test_models_that_cannot_be_loaded(models: list[Path], tmp_path: Path) -> None:
    corrupt = tiny.write_model(tmp_path / "corrupt")
    (corrupt / "fold_0" / "checkpoint_final.pth").write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="corrupt: the model cannot be loaded"):
        Pipeline([corrupt], **FAST)
    coarser = tiny.write_model(tmp_path / "coarser", spacing=(3.0, 3.0, 3.0))
    with pytest.raises(ValueError, match="members on one grid"):
        Pipeline([models[0], coarser], average="logits", **FAST)
    for device, message in (("cuda:99", "not available here"), ("abacus", "device is 'abacus'")):
        with pytest.raises(ValueError, match=message):
            Pipeline(models, device=device)
