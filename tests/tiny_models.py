"""Tiny untrained nnU-Net models, made through nnU-Net's own plans, trainer class and checkpoint.

Their folders alone need neither nnunetv2 nor torch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

LABELS = {"background": 0, "tumour": 1, "pancreas": 2}


def plans(
    spacing: Sequence[float],
    transpose: Sequence[int] = (0, 1, 2),
    reader: str = "SimpleITKIO",
    patch: Sequence[int] = (16, 16, 16),
    channels: int = 1,
) -> dict[str, Any]:
    kwargs = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(patch),
        "median_image_size_in_voxels": [64, 64, 64],
        "spacing": list(spacing),
        "normalization_schemes": ["CTNormalization"] * channels,
        "use_mask_for_norm": [False] * channels,
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": {**kwargs, "order": 3},
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_seg_kwargs": {**kwargs, "is_seg": True},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": kwargs,
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                "n_stages": 2,
                "features_per_stage": [8, 16],
                "conv_op": "torch.nn.modules.conv.Conv3d",
                "kernel_sizes": [[3, 3, 3]] * 2,
                "strides": [[1, 1, 1], [2, 2, 2]],
                "n_conv_per_stage": [1, 1],
                "n_conv_per_stage_decoder": [1],
                "conv_bias": True,
                "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                "norm_op_kwargs": {"eps": 1e-5, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        "batch_dice": True,
    }
    statistics = {"mean": 60.0, "std": 100.0, "percentile_00_5": -500.0, "percentile_99_5": 500.0}
    return {
        "dataset_name": "Dataset901_Tiny",
        "plans_name": "nnUNetPlans",
        "transpose_forward": list(transpose),
        "transpose_backward": [list(transpose).index(axis) for axis in range(3)],
        "image_reader_writer": reader,
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            str(channel): statistics for channel in range(channels)
        },
        "configurations": {"3d_fullres": configuration},
    }


def write_folder(
    folder: Path,
    folds: Sequence[int | str] = (0,),
    labels: dict[str, Any] = LABELS,
    spacing: Sequence[float] = (2.0, 1.5, 1.5),
    **settings: Any,
) -> Path:
    """Write all of a model's folder, with empty files for the weights."""
    channels = settings.get("channels", 1)
    dataset: dict[str, Any] = {
        "channel_names": {str(channel): "CT" for channel in range(channels)},
        "labels": labels,
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    if any(isinstance(label, list) for label in labels.values()):
        dataset["regions_class_order"] = list(range(1, len(labels)))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plans.json").write_text(json.dumps(plans(spacing, **settings)))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    for fold in folds:
        (folder / f"fold_{fold}").mkdir(exist_ok=True)
        (folder / f"fold_{fold}" / "checkpoint_final.pth").touch()
    return folder


def write_model(
    folder: Path,
    seed: int = 0,
    folds: Sequence[int | str] = (0,),
    favour: dict[int, float] | None = None,
    **settings: Any,
) -> Path:
    """Write a model with random weights; `favour` adds to the bias of a class, to make it win."""
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    write_folder(folder, folds, **settings)
    dataset = json.loads((folder / "dataset.json").read_text())
    manager = PlansManager(json.loads((folder / "plans.json").read_text()))
    heads = manager.get_label_manager(dataset).num_segmentation_heads
    for index, fold in enumerate(folds):
        torch.manual_seed(100 * seed + index)
        network = nnUNetTrainer.build_network_architecture(
            manager,
            manager.get_configuration("3d_fullres"),
            settings.get("channels", 1),
            heads,
            False,
        )
        weights = network.state_dict()
        for name in weights:  # far from uniform probabilities
            if "seg_layers" in name and name.endswith("weight"):
                weights[name] *= 3
            if "seg_layers" in name and name.endswith("bias"):
                for head, bias in (favour or {}).items():
                    weights[name][head] += bias
        torch.save(
            {
                "network_weights": weights,
                "trainer_name": "nnUNetTrainer",
                "init_args": {"configuration": "3d_fullres"},
                "inference_allowed_mirroring_axes": (0, 1, 2),
            },
            folder / f"fold_{fold}" / "checkpoint_final.pth",
        )
    return folder


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


def nnunet_probabilities(folder: Path, *image: Path, fold: int = 0) -> np.ndarray:
    """Return what nnU-Net's predictor and export say of a case, axes as its reader gives them."""
    import torch

    from twintrack.nnunet.models import load_model
    from twintrack.nnunet.trained_folder import inspect_folder

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
