"""From three members' logits to the calibrated tumour probability at the resolution of the CT."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
from measure import cores, fill_seconds, read_seconds
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from rows.row import CaseRow, Setting
from twintrack import CalibrationMap, ExportGeometry, export_score

MEMBERS, CLASSES, TUMOUR = 3, 7, 1
SPACING = (1.0, 0.7, 0.7)  # mm, of the image's slices, rows and columns
NNUNET = "nnU-Net's export, mean, np.interp"
COARSER = (2.0, 8 / 3, 8 / 3)  # the networks' voxels, by axis
NETWORK_SPACING = tuple(own * factor for own, factor in zip(SPACING, COARSER, strict=True))


class Case(NamedTuple):
    """Logits (classes, slices, rows, columns) on the networks' grid, and the map."""

    members: list[NDArray[np.float16]]
    shape: tuple[int, int, int]
    map: CalibrationMap

    def properties(self) -> dict[str, Any]:
        """What nnU-Net keeps of the image."""
        return {
            "spacing": list(SPACING),
            "shape_before_cropping": self.shape,
            "shape_after_cropping_and_before_resampling": self.shape,
            "bbox_used_for_cropping": [[0, extent] for extent in self.shape],
        }


class Export(CaseRow):
    """Nothing of the size classes × image is made by ours."""

    goals: ClassVar[Mapping[str, str]] = {NNUNET: "≥ 20×"}
    packages: ClassVar[tuple[str, ...]] = ("nnunetv2", "torch", "scipy")

    def describe(self, setting: Setting) -> str:
        return f"{MEMBERS} × {CLASSES} classes, {super().describe(setting)}"

    def prepare(self, setting: Setting) -> Case:
        x, y, z = setting["shape"]
        shape = (z, y, x)  # nnU-Net's order
        grid = [max(1, round(n / factor)) for n, factor in zip(shape, COARSER, strict=True)]
        rng = np.random.default_rng(0)
        members = []
        for _ in range(MEMBERS):
            # Blobs with logits of a trained network's size, and noise that no network would have.
            noise = rng.standard_normal((CLASSES, *grid), np.float32)
            blobs = gaussian_filter(noise, (0, 2, 3, 3))
            logits = 4 * blobs / blobs.std() + rng.standard_normal(blobs.shape, np.float32)
            members.append(logits.astype(np.float16))
        knots = np.linspace(0.001, 0.999, 250)
        return Case(members, shape, CalibrationMap(knots, knots**2))

    def ours(self) -> Mapping[str, Callable[[Case], NDArray[np.float32]]]:
        return {"export, merge, calibrate": export_with_twintrack}

    def peers(self) -> Mapping[str, Callable[[Case], NDArray[np.float32]]]:
        return {NNUNET: export_with_nnunet}

    def peer_bytes(self, setting: Setting) -> int:
        return 4 * 4 * CLASSES * math.prod(setting["shape"])

    def traffic(self, ours: str, inputs: Case) -> int:  # noqa: ARG002
        return sum(member.nbytes for member in inputs.members) + 4 * math.prod(inputs.shape)

    def limit(self, ours: str, inputs: Case) -> float:  # noqa: ARG002
        return read_seconds(inputs.members) + fill_seconds(np.empty(inputs.shape, np.float32))

    def difference(self, inputs: Case, ours: Any, theirs: Any) -> Mapping[str, float]:  # noqa: ARG002
        gap = np.abs(ours - theirs)
        return {"largest": float(gap.max()), "mean": float(gap.mean(dtype=np.float64))}


def export_with_twintrack(case: Case) -> NDArray[np.float32]:
    """One pass."""
    geometry = ExportGeometry.from_nnunet(case.properties(), NETWORK_SPACING)
    return export_score(case.members, geometry, TUMOUR, calibrator=case.map)


def export_with_nnunet(case: Case) -> NDArray[np.float32]:
    """`nnUNetv2_predict --save_probabilities` and `nnUNetv2_ensemble`, without the files."""
    import torch
    from nnunetv2.inference.export_prediction import (
        convert_predicted_logits_to_segmentation_with_correct_shape as export,
    )
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans = PlansManager(
        {
            "transpose_forward": [0, 1, 2],
            "transpose_backward": [0, 1, 2],
            "label_manager": "LabelManager",
            "configurations": {
                "used": {
                    "architecture": {},
                    "spacing": list(NETWORK_SPACING),
                    # nnU-Net's defaults
                    "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
                    "resampling_fn_probabilities_kwargs": {
                        "is_seg": False,
                        "order": 1,
                        "order_z": 0,
                        "force_separate_z": None,
                    },
                }
            },
        }
    )
    names = ["background", *(f"class {label}" for label in range(1, CLASSES))]
    labels = plans.get_label_manager({"labels": {name: k for k, name in enumerate(names)}})
    total: Any = 0
    for member in case.members:
        _, probabilities = export(
            torch.from_numpy(member),
            plans,
            plans.get_configuration("used"),
            labels,
            case.properties(),
            return_probabilities=True,
            num_threads_torch=cores(),
        )
        total += probabilities  # in place from the second on
    merged = total[TUMOUR] / len(case.members)
    calibrated: NDArray[np.float64] = np.interp(merged, case.map.x, case.map.y)
    return calibrated.astype(np.float32)
