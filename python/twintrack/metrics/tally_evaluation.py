"""`evaluate_tally`: the figures of any map, from the tally of the scores alone.

A `ScoreTally` knows for every cell of its score grid how many voxels there are, how many of them
each rater marked, and how many exactly k raters marked. A map turns the voxels of a cell into as
many voxels of one calibrated score, and these are all that a `CaseTally` counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from twintrack.arrays.cell_rows import CellRows
from twintrack.arrays.numbers import number_between
from twintrack.arrays.rater_sets import RaterSet
from twintrack.errors import InputError
from twintrack.metrics import figures as figures_of_tally
from twintrack.metrics.case_tally import BINS, CaseTally
from twintrack.metrics.crps import crps_corrected, crps_official
from twintrack.metrics.figures import Figures, check_protocol

WHOLE = ("tdsc", "crps", "predicted_volume")
"""Figures of the whole case: they need the voxels outside of the box, too."""

MARKED = ("rater_volumes", "disagreement", "contested_error")
"""Figures of all voxels that raters marked."""

BOXED = ("ece", "ece_per_rater")
"""Figures that the benchmark measures in the annotated box."""


_OTHER_BOX = (
    "ece: the box of a tally ends one voxel later along each axis than the benchmark's, and where "
    "it begins before the volume it is clamped"
)


class CountedScores(Protocol):
    """What is asked of a `ScoreTally`."""

    @property
    def raters(self) -> int:
        """Number of raters."""

    @property
    def regions(self) -> frozenset[str]:
        """Which voxels were counted."""

    @property
    def score_types(self) -> frozenset[str]:
        """Dtypes of the scores."""

    def cell_rows(self) -> Mapping[RaterSet, CellRows]:
        """Return the voxels by set of raters and cell."""


@dataclass(frozen=True, eq=False)
class TallyMetrics(Figures):
    """Figures of a map on the voxels of a tally.

    Attributes
    ----------
    crps : float
        Of the volume, taking the tally as one case; in the unit of `voxel_volume`.
    log_score : float
        Mean of -(MHR ln m + (1 - MHR) ln(1 - m)); infinite where the map is 0 at voxels with votes,
        or 1 at voxels that a rater did not mark. Less is better (Good 1952).
    notes : tuple of str
        Figures that the region of the tally cannot give, which are NaN, and why; and where those of
        the box differ from the benchmark's.
    """

    crps: float
    log_score: float
    notes: tuple[str, ...] = ()


def evaluate_tally(
    tally: CountedScores,
    map: Callable[[Any], Any] | None = None,  # noqa: A002 - what it is
    *,
    protocol: figures_of_tally.Protocol = "official",
    voxel_volume: float = 1.0,
    region: str | None = None,
    figures: Sequence[str] = (),
    ece_bins: int = BINS,
) -> TallyMetrics:
    """Evaluate a map from a tally of the scores, without their voxels.

    Parameters
    ----------
    tally : ScoreTally
        Of a case; the sum of several is taken as one case.
    map : CalibrationMap or Calibrator, optional
        None leaves the scores as they are.
    protocol : {"official", "corrected"}
        As in `evaluate`. The official predicted volume is the exact sum here, not NumPy's.
    voxel_volume : float
        Volumes and CRPS are in voxels by default; give mm³ per voxel to have them in mm³.
    region : str, optional
        Which voxels the tally counted, for tallies that do not say: "all", "box", "roi" or "mask".
    figures : sequence of str
        Names of figures that have to be there, such as ``["tdsc"]``. By default those that the
        region cannot give are NaN, and noted.
    ece_bins : int
        As in `evaluate`.

    Returns
    -------
    TallyMetrics
        TDSC, CRPS and predicted volume are of the whole case and need a tally of all voxels. The
        ECE is the benchmark's in the annotated box alone: of all voxels it is NaN. All others are
        those of the voxels of the tally.

    Raises
    ------
    ValueError
        The tally is of an earlier version, without counts of voxels by number of votes; the region
        cannot give one of `figures`; or an argument makes no sense.

    Notes
    -----
    Against a pass over the voxels there is no difference for 16-bit scores, which have a cell of
    their own each. Scores of 32 and 64 bits are taken at the mean of their cell, which is at most
    1/2048 of the distance to the nearer of 0 and 1 wide: the map is off by its slope times that,
    and a voxel whose score lies in the cell of a threshold may fall on its other side.
    """
    return measure_tally(
        tally,
        map,
        protocol=protocol,
        voxel_volume=voxel_volume,
        region=region,
        figures=figures,
        ece_bins=ece_bins,
    )[0]


def measure_tally(
    tally: CountedScores,
    map: Callable[[Any], Any] | None = None,  # noqa: A002 - what it is
    *,
    protocol: figures_of_tally.Protocol = "official",
    voxel_volume: float = 1.0,
    region: str | None = None,
    figures: Sequence[str] = (),
    ece_bins: int = BINS,
) -> tuple[TallyMetrics, CaseTally]:
    """Return what `evaluate_tally` does, and the tally of the mapped scores."""
    check_protocol(protocol)
    voxel_volume = number_between(voxel_volume, "voxel_volume", 0)
    counted_in = _region_of(tally, region)
    refused = refused_by(counted_in)
    notes = region_notes(counted_in)
    known = {field.name for field in fields(TallyMetrics)} - {"notes"}
    for name in figures:
        if name not in known:
            raise InputError(
                f"it must be one of {', '.join(sorted(known))}", argument="figures", value=name
            )
        if name in refused:
            raise InputError(refused[name], argument="figures", value=name)

    counted = CaseTally(tally.raters, ece_bins)
    log_score = 0.0
    for raters, rows in tally.cell_rows().items():
        typed = typed_scores(tally, rows.score)
        mapped = typed if map is None else getattr(map, "map_", map)(typed)
        log_score += counted.add_rows(raters, mapped, rows)
    found = counted.figures(protocol, voxel_volume=voxel_volume)
    crps = math.nan
    volumes = found.rater_volumes[~np.isnan(found.rater_volumes)]
    looked = counted.looked_voxels
    if counted.voxels and "crps" not in refused:  # the integral takes as long as all the rest
        if len(set(looked[looked > 0].tolist())) == 1:
            integral = crps_official if protocol == "official" else crps_corrected
            crps = integral(found.predicted_volume, volumes)
        else:
            notes = (*notes, "crps: a rater did not look at all voxels")
    lacking: dict[str, Any] = {name: math.nan for name in refused if name != "crps"}
    for name in ("ece_per_rater", "rater_volumes"):
        if name in lacking:
            lacking[name] = np.full(tally.raters, math.nan)
    measured = TallyMetrics(
        **vars(replace(found, **lacking)),
        crps=crps,
        log_score=log_score / counted.voxels if counted.voxels else math.nan,
        notes=notes,
    )
    return measured, counted


def _region_of(tally: CountedScores, stated: str | None) -> str | None:
    """Return the region of a tally; None if it is not known, or not one."""
    known = tally.regions
    if stated is not None and known not in (frozenset(), frozenset([stated])):
        raise InputError(
            f"the tally counted the region {'+'.join(sorted(known))}; leave it out",
            argument="region",
            value=stated,
        )
    if stated not in (None, "all", "box", "roi", "mask"):
        raise InputError("it must be one of all, box, roi, mask", argument="region", value=stated)
    return stated or (next(iter(known)) if len(known) == 1 else None)


def region_notes(region: str | None) -> tuple[str, ...]:
    """Return what is noted of every tally of a region."""
    reasons: dict[str, list[str]] = {}
    for name, why in refused_by(region).items():
        reasons.setdefault(why, []).append(name)
    notes = [f"{', '.join(names)}: {why}" for why, names in reasons.items()]
    return (*notes, _OTHER_BOX) if region == "box" else tuple(notes)


def refused_by(region: str | None) -> dict[str, str]:
    """Return the figures that tallies of a region cannot give, and why; None is not known."""
    if region == "all":
        why = "of all voxels the ECE is not the benchmark's, which looks at the annotated box"
        return dict.fromkeys(BOXED, f"{why}: tally with the region box")
    counted = {
        None: "it is not known which voxels the tally counted",
        "box": "the tally counted the voxels in the annotated box",
        "roi": "the tally counted the voxels in the roi mask",
        "mask": "the tally counted the voxels of a region",
    }[region]
    # The box holds all marks, but not all scores.
    names = WHOLE if region == "box" else (*WHOLE, *MARKED)
    return dict.fromkeys(names, f"{counted}, and all voxels are needed: tally with the region all")


def typed_scores(tally: CountedScores, scores: NDArray[np.float64]) -> NDArray[Any]:
    """Return scores in the dtype of those that a tally counted, for a map to round as it did."""
    dtype = next(iter(tally.score_types)) if len(tally.score_types) == 1 else "float32"
    if dtype != "bfloat16":
        return scores.astype(dtype)
    bits = scores.astype(np.float32).view(np.uint32) >> 16
    return bits.astype(np.uint16).view("V2")
