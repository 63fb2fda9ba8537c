"""`evaluate`: every metric of a case."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from twintrack.arrays.bounds import told, with_roundings
from twintrack.arrays.case import OpenCase, open_case
from twintrack.arrays.numbers import number_between
from twintrack.arrays.rater_sets import OpenParts, marks_of, open_parts, parts_of
from twintrack.metrics.case_tally import BINS, CaseOverview, CaseTally
from twintrack.metrics.crps import crps_corrected, crps_official
from twintrack.metrics.ece import expected_error_per_rater
from twintrack.metrics.figures import Figures, Protocol, check_protocol
from twintrack.metrics.numpy_sum import numpy_sum
from twintrack.metrics.vascular import VESSELS, degrees_of_case, invasion_distances

MARGIN = 20  # voxels around the annotations that calibration errors look at


@dataclass(frozen=True, eq=False)
class CaseMetrics(Figures):
    """Metrics of one case.

    Attributes
    ----------
    tdsc, predicted_volume, rater_volumes, disagreement, contested_error
        As in `Figures`, of the whole case.
    ece, ece_per_rater, ece_probability, ece_mhr, ace, brier, murphy, brier_excess, rater_brier
        As in `Figures`, of the annotated box or the region.
    crps : float
        Of the volume, in the unit of `voxel_volume`; less is better.
    vascular_invasion : dict of str to float
        Distance in degrees by vessel; empty if no vessels were given.
    notes : tuple of str
        Figures that are undefined or differ between the protocols, and why.
    calibration : CaseTally
        Tally of the voxels that calibration errors and Brier score looked at, for pooling over
        cases. Only the official ECE may look at others (see `notes`).
    """

    crps: float
    vascular_invasion: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    calibration: CaseTally | None = None


def evaluate(
    score: ArrayLike,
    raters: ArrayLike | Sequence[ArrayLike | None],
    vessels: ArrayLike | None = None,
    voxel_volume: float = 1.0,
    protocol: Protocol = "official",
    region: ArrayLike | None = None,
    *,
    ignore_label: int | None = None,
    ece_bins: int = BINS,
) -> CaseMetrics:
    """Evaluate a case as the CURVAS–PDACVI benchmark does.

    Parameters
    ----------
    score : array (X, Y, Z) of probabilities in [0, 1]
        float16, bfloat16, float32 or float64.
    raters : array (N, X, Y, Z) or sequence of N arrays of 0 and 1, any N ≥ 1
        None in a list is a rater that this case does not have; what a NumPy masked array masks, the
        rater did not look at.
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
    ignore_label : int, optional
        Value of annotations at voxels that the rater did not look at, such as 255.
    ece_bins : int
        Number of equally wide bins of the calibration errors: 50 in the benchmark.

    Raises
    ------
    ValueError, TypeError
        Names the argument and value, and the voxel, that break a rule.

    Notes
    -----
    Where raters are missing or did not look, the MHR of a voxel is votes / raters who looked, and a
    rater's calibration error is over what he saw. CRPS and vascular invasion compare whole
    annotations: they are NaN where a rater looked at a part of the case alone. `notes` says so.

    Arrays in CUDA memory are evaluated there; sums come back. Only the official CRPS of float32
    scores needs a copy of them in host memory: its predicted volume is NumPy's sum with NumPy's
    roundings.
    """
    check_protocol(protocol)
    voxel_volume = number_between(voxel_volume, "voxel_volume", 0)

    def work(bounded: Any) -> CaseMetrics:
        masks = marks_of(raters, ignore_label)
        case = open_case(bounded, masks, region, vessels)
        if masks is raters:  # everyone looked at all
            opened = parts_of(replace(case, region=None))
            inside = None if region is None else parts_of(case)
        else:
            opened = open_parts(bounded, raters, None, ignore_label)
            inside = None if region is None else open_parts(bounded, raters, region, ignore_label)
        return _evaluated(case, opened, inside, voxel_volume, protocol, ece_bins)

    found, count = with_roundings(work, score)
    return replace(found, notes=(*found.notes, told(count))) if count else found


def _evaluated(
    case: OpenCase,
    opened: OpenParts,
    inside: OpenParts | None,
    voxel_volume: float,
    protocol: Protocol,
    ece_bins: int,
) -> CaseMetrics:
    """Measure a case: its masks, and its voxels by who looked, all of them and in the region."""
    whole = CaseTally(opened.number, ece_bins)
    if opened.partly or opened.missing:
        whole.add_parts(opened)
        overview = CaseTally(len(case.raters)).add_and_overview(case)
    else:
        overview = whole.add_and_overview(case)
    notes = _of_looks(opened)

    calibration, official = _calibration_tallies(
        case, opened, inside, whole, overview, protocol, notes
    )
    # What of the figures is of the whole case, and what of the voxels that calibration looks at.
    of_whole = whole.figures(protocol, voxel_volume=voxel_volume)
    found = of_whole if calibration is whole else calibration.figures(protocol)
    ece = found
    if protocol == "official":
        ece = found if official is calibration else official.figures()
        closed = expected_error_per_rater(official.confidence_bins.closed())
        if not np.array_equal(ece.ece_per_rater, closed, equal_nan=True):
            notes.append(
                "official: voxels with a confidence of exactly 1 have a bin of their own; "
                "corrected puts them into the last"
            )
    volumes = np.delete(of_whole.rater_volumes, opened.missing)
    if opened.partly:
        crps = math.nan
    elif protocol == "official":
        crps = _official_crps(case, overview, whole, voxel_volume, volumes, notes)
    else:
        crps = crps_corrected(of_whole.predicted_volume, volumes)

    invasion: dict[str, float] = {}
    if case.vessels is not None and opened.partly:
        invasion = dict.fromkeys(VESSELS, math.nan)
    elif case.vessels is not None:
        measured = invasion_distances(degrees_of_case(case), protocol)
        invasion = measured.distance
        notes.extend(measured.notes)

    figures = replace(
        found,
        ece=ece.ece,
        ece_per_rater=ece.ece_per_rater,
        tdsc=of_whole.tdsc,
        predicted_volume=of_whole.predicted_volume,
        rater_volumes=of_whole.rater_volumes,
        disagreement=of_whole.disagreement,
        contested_error=of_whole.contested_error,
    )
    return CaseMetrics(
        **vars(figures),
        crps=crps,
        vascular_invasion=invasion,
        notes=tuple(notes),
        calibration=calibration,
    )


def _of_looks(opened: OpenParts) -> list[str]:
    """Return what there is to say of raters that are missing or did not look everywhere."""
    notes = []
    if opened.missing:
        names = ", ".join(str(k + 1) for k in opened.missing)
        notes.append(
            f"of {opened.number} raters {names} looked at nothing: the figures are of the others"
        )
    if opened.partly:
        notes.append(
            "a rater did not look at all voxels: the MHR is votes / raters who looked, and a "
            "rater's calibration error is over what he saw, which the official evaluator does not "
            "know; CRPS and vascular invasion are undefined"
        )
    return notes


def _calibration_tallies(
    case: OpenCase,
    opened: OpenParts,
    inside: OpenParts | None,
    whole: CaseTally,
    overview: CaseOverview,
    protocol: Protocol,
    notes: list[str],
) -> tuple[CaseTally, CaseTally]:
    """Return the tally for calibration figures, and that for the official ECE.

    The second is another in the rare case that the official box is not the clamped one.
    """
    nothing = CaseTally(whole.raters, whole.bins)
    if inside is not None:
        tally = CaseTally(whole.raters, whole.bins).add_parts(inside)
        if tally.voxels == 0:
            notes.append("no voxel to measure calibration on: calibration errors are undefined")
        return tally, tally
    if not overview.marked:
        notes.append(
            "no rater marked anything: there is no annotated box, calibration errors look at the "
            "whole volume"
            + (
                " and the ECE is undefined (the official evaluator raises OverflowError)"
                if protocol == "official"
                else ""
            )
        )
        return whole, nothing
    # By definition the box ends before max + 20, a voxel short of symmetric.
    box = tuple(slice(first - MARGIN, end - 1 + MARGIN) for first, end in overview.marked)
    clamped = tuple(slice(max(part.start, 0), part.stop) for part in box)
    if all(
        part.start == 0 and part.stop >= n
        for part, n in zip(clamped, case.score.shape, strict=True)
    ):
        tally = whole  # a second look would find the same
    else:
        tally = CaseTally(whole.raters, whole.bins).add_parts(opened.cropped(clamped))
    if protocol == "corrected" or box == clamped:
        return tally, tally
    # A start below 0 counts from the end for the official evaluator: its box is usually empty.
    official = CaseTally(whole.raters, whole.bins).add_parts(opened.cropped(box))
    axis = next(axis for axis, part in enumerate(box) if part.start < 0)
    notes.append(
        f"official: annotations lie within {MARGIN} voxels of the low border of axis "
        f"{axis}, so the box of the ECE starts at a negative index, which counts from the "
        f"end, and holds {official.voxels} voxels"
        + ("; the ECE is undefined" if official.voxels == 0 else "")
        + "; corrected clamps it"
    )
    return tally, official


def _official_crps(
    case: OpenCase,
    overview: CaseOverview,
    whole: CaseTally,
    voxel_volume: float,
    volumes: NDArray[np.float64],
    notes: list[str],
) -> float:
    exact = whole.predicted_voxels
    voxels = numpy_sum(case, exact, overview.scored)
    if abs(voxels - exact) > 1e-4 * exact:
        notes.append(
            f"official: the predicted volume is summed in {case.score.dtype}, which gives "
            f"{voxels:.7g} voxels instead of {exact:.7g}"
        )
    if np.ptp(volumes) == 0:
        notes.append("official: CRPS is 0 for any prediction, since all raters agree on volume")
    elif abs(voxels * voxel_volume - volumes.mean()) > 3 * volumes.std():
        notes.append(
            "official: the predicted volume is more than 3 standard deviations off the raters' "
            "mean, where CRPS no longer tells near from far; corrected integrates over the whole "
            "line"
        )
    return crps_official(voxels * voxel_volume, volumes)
