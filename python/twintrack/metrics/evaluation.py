"""`evaluate`: every metric of a case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from twintrack.arrays import rater_arrays, region_array, score_array
from twintrack.metrics.brier import Murphy, brier, murphy
from twintrack.metrics.case_tally import Bins, CaseTally
from twintrack.metrics.crps import crps_corrected, crps_official
from twintrack.metrics.ece import average_error, expected_error, expected_error_per_rater
from twintrack.metrics.tdsc import tdsc
from twintrack.metrics.vascular import vascular_invasion

__all__ = ["MARGIN", "CaseMetrics", "Protocol", "evaluate"]

Protocol = Literal["official", "corrected"]
MARGIN = 20  # voxels around the annotations that calibration errors look at


@dataclass(frozen=True)
class CaseMetrics:
    """Metrics of one case.

    Attributes
    ----------
    tdsc : float
        Thresholded Dice score, in [0, 1]; more is better.
    ece : float
        Top-label calibration error, mean over raters; less is better.
    ece_per_rater : (N,) float64
    ece_probability : float
        Calibration error of the tumour probability per rater, averaged (paper, Appendix B).
    ece_mhr : float
        Calibration error of the tumour probability against the MHR.
    ace : float
        Average calibration error against the MHR.
    brier : float
        Mean of (p - MHR)².
    murphy : Murphy
        Decomposition of the Brier score over raters' answers.
    crps : float
        Of the volume, in the unit of `voxel_volume`; less is better.
    predicted_volume : float
        Sum of the scores × voxel volume.
    rater_volumes : (N,) float64
    vascular_invasion : dict of str to float
        Distance in degrees by vessel; empty if no vessels were given.
    notes : tuple of str
        Figures that are undefined or differ between the protocols, and why.
    calibration : CaseTally
        Tally of the voxels that the calibration errors looked at, for pooling over cases.
    """

    tdsc: float
    ece: float
    ece_per_rater: NDArray[np.float64]
    ece_probability: float
    ece_mhr: float
    ace: float
    brier: float
    murphy: Murphy
    crps: float
    predicted_volume: float
    rater_volumes: NDArray[np.float64]
    vascular_invasion: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    calibration: CaseTally | None = None


def evaluate(
    score: ArrayLike,
    raters: ArrayLike | Sequence[ArrayLike],
    vessels: ArrayLike | None = None,
    voxel_volume: float = 1.0,
    protocol: Protocol = "official",
    region: ArrayLike | None = None,
) -> CaseMetrics:
    """Evaluate a case as the CURVAS–PDACVI benchmark does.

    Parameters
    ----------
    score : array (X, Y, Z) of probabilities in [0, 1]
        float16, bfloat16, float32 or float64.
    raters : array (N, X, Y, Z) or sequence of N arrays of 0 and 1, any N ≥ 1
    vessels : integer array (X, Y, Z), optional
        Label map: PORTA 1, SMV 2, AORTA 3, CELIAC TRUNK 4, SMA 5.
    voxel_volume : float
        Volumes and CRPS are in voxels by default; give mm³ per voxel to have them in mm³.
    protocol : {"official", "corrected"}
        ``"official"`` gives what the official evaluator returns, accidents included, NaN for what
        it returns as NaN and for what it raises. ``"corrected"`` keeps the definitions without the
        accidents: the box is clamped to the volume, a confidence of 1 belongs to the last bin, the
        CRPS is the exact integral over the whole line and |V - μ| where raters agree.
    region : boolean array (X, Y, Z), optional
        Voxels that calibration errors and Brier score look at. By default the annotated box, the
        bounding box of all raters' marks with 20 voxels around it, as in the protocol.

    Raises
    ------
    ValueError
        Names the array, voxel and value that break a rule.
    """
    if protocol not in get_args(Protocol):
        raise ValueError(f"protocol is {protocol!r}; it must be official or corrected")
    if not voxel_volume > 0:
        raise ValueError(f"voxel_volume is {voxel_volume}; it must be positive")
    p, masks = score_array(score), rater_arrays(raters)
    whole = CaseTally(len(masks))
    marked = whole.update_and_find_marked(p, masks)
    notes: list[str] = []

    calibration = CaseTally(len(masks))
    if region is not None:
        calibration.update(p, masks, region_array(region))
    elif marked:
        box = _box(marked, protocol, notes)
        calibration.update(p[box], [mask[box] for mask in masks])
    else:
        notes.append(
            "no rater marked anything: there is no annotated box, calibration errors are undefined"
            + (" (the official evaluator raises OverflowError)" if protocol == "official" else "")
        )
    if marked and calibration.voxels == 0:
        notes.append("no voxel to measure calibration on: calibration errors are undefined")

    ece_bins, score_bins = calibration.confidence_bins, calibration.score_bins
    if protocol == "corrected":
        ece_bins, score_bins = ece_bins.closed(), score_bins.closed()
    elif _differs(ece_bins):
        notes.append(
            "official: voxels with a confidence of exactly 1 have a bin of their own; "
            "corrected puts them into the last"
        )
    per_rater = expected_error_per_rater(ece_bins)

    rater_volumes = whole.rater_voxels.astype(np.float64) * voxel_volume
    volume = whole.predicted_voxels * voxel_volume
    if protocol == "official":
        crps = crps_official(_sum_as_numpy(p) * voxel_volume, rater_volumes)
        if np.ptp(rater_volumes) == 0:
            notes.append("official: CRPS is 0 for any prediction, since all raters agree on volume")
    else:
        crps = crps_corrected(volume, rater_volumes)

    invasion: dict[str, float] = {}
    if vessels is not None:
        found = vascular_invasion(p, masks, vessels, protocol)
        invasion = found.distance
        notes.extend(found.notes)

    return CaseMetrics(
        tdsc=tdsc(whole.votes),
        ece=float(per_rater.mean()),
        ece_per_rater=per_rater,
        ece_probability=float(expected_error_per_rater(score_bins).mean()),
        ece_mhr=expected_error(score_bins),
        ace=average_error(score_bins),
        brier=brier(calibration),
        murphy=murphy(score_bins),
        crps=crps,
        predicted_volume=volume,
        rater_volumes=rater_volumes,
        vascular_invasion=invasion,
        notes=tuple(notes),
        calibration=calibration,
    )


def _box(
    marked: tuple[tuple[int, int], ...],
    protocol: Protocol,
    notes: list[str],
) -> tuple[slice, ...]:
    """Slices of the annotated box. The official end, max + 20, is exclusive: one voxel short."""
    if protocol == "corrected":
        return tuple(slice(max(first - MARGIN, 0), end + MARGIN) for first, end in marked)
    box = tuple(slice(first - MARGIN, end - 1 + MARGIN) for first, end in marked)
    below = [axis for axis, part in enumerate(box) if part.start < 0]
    if below:
        # A negative start counts from the end: the box usually becomes empty.
        notes.append(
            f"official: annotations lie within {MARGIN} voxels of the low border of axis "
            f"{below[0]}, so its box starts at a negative index, which counts from the end; "
            "corrected clamps it"
        )
    return box


def _differs(bins: Bins) -> bool:
    """Whether joining the bin of the value 1 to the last changes a calibration error."""
    closed = expected_error_per_rater(bins.closed())
    return not np.allclose(closed, expected_error_per_rater(bins), rtol=0, atol=0, equal_nan=True)


def _sum_as_numpy(score: NDArray[Any]) -> float:
    """Sum in the score's own dtype, as the official evaluator has NumPy do it."""
    if score.dtype.kind != "f":  # bfloat16, which NumPy cannot add
        score = (score.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return float(np.sum(score))
