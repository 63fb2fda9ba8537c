"""`evaluate`: every metric of a case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from twintrack.arrays.case_arguments import check_one_case
from twintrack.arrays.device import device_array
from twintrack.arrays.host import on_device, rater_arrays, score_array
from twintrack.arrays.libraries import device_kind
from twintrack.arrays.numbers import number_between
from twintrack.errors import InputError
from twintrack.metrics.brier import Murphy, brier, murphy
from twintrack.metrics.case_tally import Bins, CaseTally
from twintrack.metrics.crps import crps_corrected, crps_official
from twintrack.metrics.ece import average_error, expected_error, expected_error_per_rater
from twintrack.metrics.numpy_sum import numpy_sum
from twintrack.metrics.tdsc import tdsc
from twintrack.metrics.vascular import vascular_invasion

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
        Tally of the voxels that calibration errors and Brier score looked at, for pooling over
        cases. Only the official ECE may look at others (see `notes`).
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
        CRPS is the exact integral over the whole line and |V - μ| where raters agree, and where no
        rater marked anything the box is the whole volume. Figures that the official evaluator does
        not have are the same in both.
    region : array (X, Y, Z), False and True or 0 and one other value in any dtype, optional
        Voxels that calibration errors and Brier score look at. By default the annotated box, the
        bounding box of all raters' marks with 20 voxels around it, as in the protocol.

    Raises
    ------
    ValueError, TypeError
        Names the argument and value, and the voxel, that break a rule.

    Notes
    -----
    Arrays in CUDA memory are evaluated there; sums come back. Only the official CRPS of float32
    scores needs a copy of them in host memory: its predicted volume is NumPy's sum with NumPy's
    roundings.
    """
    if protocol not in get_args(Protocol):
        raise InputError("it must be official or corrected", argument="protocol", value=protocol)
    voxel_volume = number_between(voxel_volume, "voxel_volume", 0)
    check_one_case(score, raters)
    p: Any
    masks: list[Any]
    if on_device(score=score, raters=raters, region=region, vessels=vessels):
        # They stay there; the tallies check them.
        p, masks = score, list(raters)  # type: ignore[arg-type]
    else:
        p, masks = score_array(score), rater_arrays(raters)
    whole = CaseTally(len(masks))
    overview = whole.update_and_overview(p, masks)
    notes: list[str] = []

    # One tally for calibration figures; another for the official ECE in the rare case that the
    # official box is not it.
    calibration = official = CaseTally(len(masks))
    if region is not None:
        calibration.update(p, masks, region)
        if calibration.voxels == 0:
            notes.append("no voxel to measure calibration on: calibration errors are undefined")
    elif overview.marked:
        box, clamped = _box(overview.marked, protocol)
        if not all(
            part.start == 0 and part.stop >= n for part, n in zip(clamped, p.shape, strict=True)
        ):
            calibration.update(p[clamped], [mask[clamped] for mask in masks])
        else:  # a second look would find the same
            calibration = official = whole
        if box != clamped:
            official = CaseTally(len(masks)).update(p[box], [mask[box] for mask in masks])
            axis = next(axis for axis, part in enumerate(box) if part.start < 0)
            notes.append(
                f"official: annotations lie within {MARGIN} voxels of the low border of axis "
                f"{axis}, so the box of the ECE starts at a negative index, which counts from the "
                f"end, and holds {official.voxels} voxels"
                + ("; the ECE is undefined" if official.voxels == 0 else "")
                + "; corrected clamps it"
            )
    else:
        calibration = whole
        notes.append(
            "no rater marked anything: there is no annotated box, calibration errors look at the "
            "whole volume"
            + (
                " and the ECE is undefined (the official evaluator raises OverflowError)"
                if protocol == "official"
                else ""
            )
        )

    ece_bins = official.confidence_bins
    if protocol == "corrected":
        ece_bins = calibration.confidence_bins.closed()
    elif _differs(ece_bins):
        notes.append(
            "official: voxels with a confidence of exactly 1 have a bin of their own; "
            "corrected puts them into the last"
        )
    per_rater = expected_error_per_rater(ece_bins)
    score_bins = calibration.score_bins.closed()

    rater_volumes = whole.rater_voxels.astype(np.float64) * voxel_volume
    volume = whole.predicted_voxels * voxel_volume
    if protocol == "official":
        crps = _official_crps(p, overview.scored, whole, voxel_volume, notes)
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
    marked: tuple[tuple[int, int], ...], protocol: Protocol
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Slices of the annotated box, as the protocol takes it and clamped to the volume.

    By definition it ends before max + 20, a voxel short of symmetric. A start below 0 counts from
    the end for the official evaluator, so that its box is usually empty.
    """
    box = tuple(slice(first - MARGIN, end - 1 + MARGIN) for first, end in marked)
    clamped = tuple(slice(max(part.start, 0), part.stop) for part in box)
    return (clamped if protocol == "corrected" else box), clamped


def _differs(bins: Bins) -> bool:
    """Whether joining the bin of the value 1 to the last changes a calibration error."""
    closed = expected_error_per_rater(bins.closed())
    return not np.array_equal(closed, expected_error_per_rater(bins), equal_nan=True)


def _official_crps(
    score: Any,
    scored: NDArray[np.uint8] | None,
    whole: CaseTally,
    voxel_volume: float,
    notes: list[str],
) -> float:
    exact = whole.predicted_voxels
    voxels = numpy_sum(score, exact, scored)
    if abs(voxels - exact) > 1e-4 * exact:
        there = device_kind(score) is not None
        dtype = device_array(score, "score").dtype if there else score.dtype
        notes.append(
            f"official: the predicted volume is summed in {dtype}, which gives {voxels:.7g} "
            f"voxels instead of {exact:.7g}"
        )
    volumes = whole.rater_voxels.astype(np.float64) * voxel_volume
    if np.ptp(volumes) == 0:
        notes.append("official: CRPS is 0 for any prediction, since all raters agree on volume")
    elif abs(voxels * voxel_volume - volumes.mean()) > 3 * volumes.std():
        notes.append(
            "official: the predicted volume is more than 3 standard deviations off the raters' "
            "mean, where CRPS no longer tells near from far; corrected integrates over the whole "
            "line"
        )
    return crps_official(voxels * voxel_volume, volumes)
