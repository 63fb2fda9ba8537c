"""Kinds of cases, and how far the fused export is from nnU-Net's own export, mean and merge."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.export_prediction import (
    convert_predicted_logits_to_segmentation_with_correct_shape,
)
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from scipy.ndimage import gaussian_filter

from twintrack.ensemble import ExportGeometry, export_score

CLASSES_2 = {"background": 0, "tumour": 1}
CLASSES_7 = {"background": 0, **{f"class{i}": i for i in range(1, 7)}}
REGIONS = {"background": 0, "pancreas": [1, 2, 3], "lesion": [2, 3], "tumour": 2}


@dataclass(frozen=True)
class Kind:
    """A kind of case. Sizes and spacings are in the image's axis order."""

    name: str
    shape: tuple[int, int, int]  # image
    box: tuple[tuple[int, int], ...] | None  # None: nothing cropped
    spacing: tuple[float, float, float]
    network_spacing: tuple[float, ...]
    transpose: tuple[int, int, int] = (0, 1, 2)
    labels: dict[str, Any] = field(default_factory=lambda: CLASSES_2)
    tumour: tuple[int, ...] = (1,)
    resampling: str = "nnunet"
    force_separate_z: bool | None = None
    dtype: type = np.float16
    average: str = "probabilities"
    members: int = 3

    @property
    def regions(self) -> bool:
        return any(isinstance(label, list) for label in self.labels.values())

    @property
    def channels(self) -> int:
        return len(self.labels) - 1 if self.regions else len(self.labels)


KINDS = [
    Kind("isotropic", (40, 70, 60), None, (1.0, 0.8, 0.8), (1.5, 1.5, 1.5)),
    Kind("one grid", (30, 50, 40), None, (1.5, 1.5, 1.5), (1.5, 1.5, 1.5)),
    Kind("finer network", (21, 30, 33), None, (3.0, 2.0, 2.0), (1.3, 1.1, 0.9)),
    Kind("7 classes", (40, 70, 60), None, (2, 0.8, 0.8), (2.5, 1.5, 1.5), labels=CLASSES_7),
    Kind(
        "7 classes, 3 merged",
        (33, 50, 60),
        None,
        (2, 0.8, 0.8),
        (2.5, 1.1, 1.1),
        labels=CLASSES_7,
        tumour=(1, 4, 5),
    ),
    Kind("anisotropic image", (17, 64, 72), None, (5.0, 0.7, 0.7), (2.5, 0.9, 0.9)),
    Kind("anisotropic network", (40, 64, 72), None, (2.0, 0.8, 0.8), (4.8, 0.9, 0.9)),
    Kind("anisotropic, halves", (20, 48, 40), None, (5.0, 0.7, 0.7), (2.5, 1.0, 1.0)),
    Kind("anisotropic, thirds", (30, 48, 40), None, (4.0, 0.7, 0.7), (6.0, 1.0, 1.0)),
    Kind("anisotropic, axis 2", (50, 60, 15), None, (0.7, 0.7, 5.0), (1.0, 1.1, 4.0)),
    Kind("anisotropic, axis 1", (50, 20, 45), None, (0.7, 5.0, 0.7), (1.0, 4.0, 1.0)),
    Kind("two coarse axes", (40, 30, 30), None, (0.5, 2.0, 2.0), (0.7, 2.5, 2.5)),
    Kind(
        "never separate",
        (17, 64, 72),
        None,
        (5.0, 0.7, 0.7),
        (2.5, 0.9, 0.9),
        force_separate_z=False,
    ),
    Kind(
        "always separate",
        (30, 50, 40),
        None,
        (1.4, 1.0, 1.0),
        (2.0, 1.3, 1.3),
        force_separate_z=True,
    ),
    Kind("cropped", (50, 80, 90), ((3, 45), (10, 70), (0, 64)), (1.0, 0.8, 0.8), (1.5, 1.2, 1.2)),
    Kind(
        "transposed",
        (60, 40, 50),
        ((4, 60), (2, 39), (5, 50)),
        (0.8, 2.0, 0.9),
        (1.2, 2.6, 1.3),
        transpose=(1, 0, 2),
        labels=CLASSES_7,
    ),
    Kind(
        "rotated axes",
        (60, 50, 22),
        ((4, 60), (2, 39), (5, 20)),
        (0.8, 0.7, 4.0),
        (1.2, 1.1, 3.0),
        transpose=(2, 0, 1),
        labels=CLASSES_7,
    ),
    Kind(
        "regions",
        (40, 60, 50),
        ((2, 38), (0, 60), (7, 44)),
        (1.0, 0.8, 0.8),
        (1.5, 1.5, 1.5),
        labels=REGIONS,
        tumour=(2,),
    ),
    Kind("2-D network", (12, 60, 50), None, (3.0, 0.8, 0.7), (1.3, 1.2), labels=CLASSES_7),
    Kind(
        "float32",
        (40, 70, 60),
        None,
        (2, 0.8, 0.8),
        (2.5, 1.5, 1.5),
        labels=CLASSES_7,
        dtype=np.float32,
    ),
    Kind(
        "torch",
        (40, 70, 60),
        None,
        (2, 0.8, 0.8),
        (2.5, 1.5, 1.5),
        labels=CLASSES_7,
        resampling="torch",
    ),
    Kind(
        "torch, anisotropic",
        (17, 64, 72),
        ((1, 17), (3, 60), (2, 70)),
        (5.0, 0.7, 0.7),
        (2.5, 0.9, 0.9),
        resampling="torch",
    ),
    Kind("torch, thirds", (30, 48, 40), None, (4.0, 0.7, 0.7), (6.0, 1.0, 1.0), resampling="torch"),
    Kind(
        "mean of logits",
        (40, 70, 60),
        None,
        (2, 0.8, 0.8),
        (2.5, 1.5, 1.5),
        labels=CLASSES_7,
        average="logits",
    ),
    Kind(
        "one member",
        (40, 70, 60),
        None,
        (2, 0.8, 0.8),
        (2.5, 1.5, 1.5),
        labels=CLASSES_7,
        members=1,
    ),
]


def make(kind: Kind, seed: int) -> tuple[list[Any], dict[str, Any], PlansManager, dict[str, Any]]:
    """Return the members' logits as the networks would, and nnU-Net's objects for the case."""
    forward = kind.transpose
    box = kind.box or tuple((0, extent) for extent in kind.shape)
    spacing = [kind.spacing[a] for a in forward]
    network = (
        [kind.network_spacing[a] for a in forward]
        if len(kind.network_spacing) == 3
        else [spacing[0], *kind.network_spacing]
    )
    inside = [box[a][1] - box[a][0] for a in forward]
    grid = [round(n * s / t) for n, s, t in zip(inside, spacing, network, strict=True)]
    rng = np.random.default_rng(seed)
    members = []
    for _ in range(kind.members):
        # Blobs with logits of a trained network's size, and noise that no network would have.
        field_ = gaussian_filter(rng.normal(size=(kind.channels, *grid)), (0, 2, 3, 3))
        logits = 4 * field_ / field_.std() + rng.normal(size=field_.shape)
        members.append(torch.from_numpy(logits.astype(kind.dtype)))
    properties = {
        "spacing": list(kind.spacing),
        "shape_before_cropping": tuple(kind.shape[a] for a in forward),
        "bbox_used_for_cropping": [list(box[a]) for a in forward],
        "shape_after_cropping_and_before_resampling": tuple(inside),
    }
    function = {"nnunet": "resample_data_or_seg_to_shape", "torch": "resample_torch_fornnunet"}
    keywords: dict[str, Any] = {"is_seg": False, "force_separate_z": kind.force_separate_z}
    if kind.resampling == "nnunet":
        keywords |= {"order": 1, "order_z": 0}
    plans = PlansManager(
        {
            "transpose_forward": list(forward),
            "transpose_backward": [int(a) for a in np.argsort(forward)],
            "label_manager": "LabelManager",
            "configurations": {
                "used": {
                    "architecture": {},
                    "spacing": network if len(kind.network_spacing) == 3 else kind.network_spacing,
                    "resampling_fn_probabilities": function[kind.resampling],
                    "resampling_fn_probabilities_kwargs": keywords,
                }
            },
        }
    )
    dataset: dict[str, Any] = {"labels": kind.labels}
    if kind.regions:
        dataset["regions_class_order"] = [1, 3, 2]
    return members, properties, plans, dataset


def nnunet_score(
    kind: Kind, members: list[Any], properties: dict[str, Any], plans: PlansManager, dataset: Any
) -> np.ndarray:
    """Return what nnU-Net's export, mean and merge give, float64."""
    if kind.average == "logits":
        prediction = members[0].clone()
        for member in members[1:]:
            prediction += member
        prediction /= len(members)
        members = [prediction]
    mean = 0.0
    for member in members:
        _, probabilities = convert_predicted_logits_to_segmentation_with_correct_shape(
            member,
            plans,
            plans.get_configuration("used"),
            plans.get_label_manager(dataset),
            properties,
            return_probabilities=True,
            num_threads_torch=1,
        )
        mean = mean + probabilities.astype(np.float64) / len(members)
    return np.asarray(mean)[list(kind.tumour)].sum(0)


def differences(kind: Kind, seed: int = 0) -> tuple[float, float]:
    """Return the largest and the mean difference of the fused export from nnU-Net's."""
    members, properties, plans, dataset = make(kind, seed)
    expected = nnunet_score(kind, members, properties, plans, dataset)
    geometry = ExportGeometry.from_nnunet(
        properties, plans.get_configuration("used").spacing, plans.transpose_forward
    )
    exported = export_score(
        members,
        geometry,
        tumour=kind.tumour,
        average=kind.average,
        regions=kind.regions,
        resampling=kind.resampling,
        force_separate_z=kind.force_separate_z,
    )
    score = exported.numpy()
    assert score.shape == kind.shape
    assert expected.std() > 0.05  # there is something to compare
    if kind.box is not None:
        outside = np.ones(kind.shape, bool)
        outside[tuple(slice(*ends) for ends in kind.box)] = False
        assert not np.asarray(score)[outside].any()
    difference = np.abs(np.asarray(score) - expected)
    return float(difference.max()), float(difference.mean())
