"""Calibration error of the tumour probability: 50 equally wide bins, one rater."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
from measure import read_seconds
from numpy.typing import NDArray
from suite.inputs import rater_masks, scores

from rows.row import Setting, VoxelRow
from twintrack import CaseTally
from twintrack.metrics.ece import expected_error

BINS = 50


class Case(NamedTuple):
    """Scores and what one rater marked."""

    score: NDArray[Any]
    mask: NDArray[np.uint8]


class CalibrationError(VoxelRow):
    """The larger number of voxels has more than 2^24 in a bin, where float32 stops counting.

    NumPy's float64 sums show who is right.
    """

    packages: ClassVar[tuple[str, ...]] = (
        *("numpy", "scikit-learn", "torch", "torchmetrics", "monai", "netcal"),
    )
    voxels: ClassVar[tuple[int, ...]] = (10**7, 10**8)
    distributions: ClassVar[tuple[str, ...]] = ("background", "ensemble3")
    peer_bytes_per_voxel: ClassVar[int] = 50

    def prepare(self, setting: Setting) -> Case:
        score = scores(setting["voxels"], setting["distribution"])
        return Case(score, rater_masks(score, raters=1)[0])

    def ours(self) -> Mapping[str, Callable[[Case], float]]:
        return {"calibration error": error_with_twintrack}

    def peers(self) -> Mapping[str, Callable[[Case], float]]:
        return {
            "NumPy, float64": error_with_numpy,
            "scikit-learn": error_with_sklearn,
            "torchmetrics": error_with_torchmetrics,
            "MONAI": error_with_monai,
            "netcal": error_with_netcal,
        }

    def traffic(self, ours: str, inputs: Case) -> int:  # noqa: ARG002
        return inputs.score.nbytes + inputs.mask.nbytes

    def limit(self, ours: str, inputs: Case) -> float:  # noqa: ARG002
        return read_seconds([inputs.score, inputs.mask])

    def difference(self, inputs: Case, ours: float, theirs: float) -> Mapping[str, float]:  # noqa: ARG002
        return {f"{theirs:.5f} (ours {ours:.5f}), off by": abs(ours - theirs)}


def error_with_twintrack(case: Case) -> float:
    """Σ over bins of |marks - sum of the scores|, over all voxels."""
    return expected_error(CaseTally(1, BINS).update(case.score, [case.mask]).score_bins.closed())


def error_with_numpy(case: Case) -> float:
    """The same."""
    which = np.minimum((case.score * np.float64(BINS)).astype(np.int64), BINS - 1)
    claimed = np.bincount(which, case.score, BINS)
    marked = np.bincount(which, case.mask, BINS)
    return float(np.abs(marked - claimed).sum() / case.score.size)


def error_with_sklearn(case: Case) -> float:
    """`calibration_curve` leaves out how many voxels a bin has, so they are counted as well."""
    from sklearn.calibration import calibration_curve

    marked, claimed = calibration_curve(case.mask, case.score, n_bins=BINS)
    count = np.histogram(case.score, BINS, (0, 1))[0]
    return float(np.abs(marked - claimed) @ count[count > 0] / case.score.size)


def error_with_torchmetrics(case: Case) -> float:
    """`BinaryCalibrationError`, which is that of the positive class."""
    import torch
    from torchmetrics.classification import BinaryCalibrationError

    metric = BinaryCalibrationError(n_bins=BINS, norm="l1")
    return float(metric(torch.from_numpy(case.score), torch.from_numpy(case.mask)))


def error_with_monai(case: Case) -> float:
    """`CalibrationErrorMetric` on one channel."""
    import torch
    from monai.metrics import CalibrationErrorMetric

    metric = CalibrationErrorMetric(num_bins=BINS, calibration_reduction="expected")
    metric(
        y_pred=torch.from_numpy(case.score)[None, None], y=torch.from_numpy(case.mask)[None, None]
    )
    return float(metric.aggregate())


def error_with_netcal(case: Case) -> float:
    """`ECE` of binary labels."""
    from netcal.metrics import ECE

    return float(ECE(bins=BINS).measure(case.score, case.mask))
