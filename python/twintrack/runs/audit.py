"""Audit: whether a map is still right for new cases, and what to do if it is not."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from twintrack.arrays.by_value import ByValue
from twintrack.arrays.numbers import number_between
from twintrack.arrays.threads import ahead
from twintrack.calibration.calibration_map import CalibrationMap
from twintrack.calibration.calibrator import Calibrator
from twintrack.calibration.departures import Answers, Departure, Departures, MapErrors
from twintrack.calibration.group_tally import GroupTally
from twintrack.calibration.map_bounds import bounded
from twintrack.calibration.map_updates import AffineUpdates
from twintrack.calibration.score_tally import ScoreTally
from twintrack.errors import InputError
from twintrack.metrics.corp import corp, miscalibration_if_calibrated
from twintrack.metrics.mapped_voxels import MappedVoxels, all_of
from twintrack.runs.case_band import each_patient
from twintrack.runs.fit import fit_tallies
from twintrack.runs.progress import Progress
from twintrack.runs.stored_tallies import StoredTallies

Verdict = Literal["keep", "refit", "too few cases"]
Update = Literal["affine", "refit"]
Source = Literal["tallies", "band", "unknown"]

SIZE = 0.05
SHARES = (0.6, 0.4)
"""What the tests of volume and of tilt have of the size: the volume is what shifts most often."""

LEVEL = 0.90
"""Of the intervals that lie within the bound if the map is kept: two one-sided tests of 5%."""

_SAME_MAP = 0.01  # cuts of exact=True move a map by less


class Gain(NamedTuple):
    """By how much a map has a lower Brier score per voxel, and the standard error over patients."""

    gain: float
    error: float


@dataclass(frozen=True, eq=False)
class Audit(ByValue):
    """What new cases say of a map.

    Attributes
    ----------
    verdict : {"keep", "refit", "too few cases"}
    p_value : float
        Of the map being right for the new cases: the smaller of those of volume and tilt, divided
        by its share of the size (`SHARES`).
    volume, tilt : Departure
        As `Departures` defines them.
    bound : float
        Relative error of the volume, and of the tilt, that would not matter.
    detectable : float
        Relative error of the volume that the test would have found with a probability of 80%.
    map_error_from : {"tallies", "band", "unknown"}
        Where the error of the map's own calibration set is known from.
    cases, patients : int
    effective_groups : float
        Effective number of new patients by their marked volumes.
    miscalibration, if_calibrated, likely : float
        CORP's MCB in the new cases; its mean, and its 95% quantile, in as many of them if the map
        were exactly right.
    updates : dict
        a and b of the affine update of the log-odds.
    affine_gain, refit_gain, refit_over_affine : Gain
        In each new patient, of a map made of the others.
    recommended : {"affine", "refit"} or None
        What replaces the map; None if it stays, or if neither is better in patients left out.
    old, affine, refitted : CalibrationMap
        The map, and those of the updates.
    """

    verdict: Verdict
    p_value: float
    volume: Departure
    tilt: Departure
    bound: float
    detectable: float
    map_error_from: Source
    cases: int
    patients: int
    effective_groups: float
    miscalibration: float
    if_calibrated: float
    likely: float
    updates: dict[str, float]
    affine_gain: Gain
    refit_gain: Gain
    refit_over_affine: Gain
    recommended: Update | None
    old: CalibrationMap
    affine: CalibrationMap
    refitted: CalibrationMap

    @property
    def volume_interval(self) -> tuple[float, float]:
        """The 90% interval of the map's relative volume error in all cases like the new ones."""
        low, high = map(_relative, self.volume.interval(LEVEL))
        return low, high

    @property
    def sentence(self) -> str:
        """The verdict and its reason."""
        found, (low, high) = _relative(self.volume.estimate), self.volume_interval
        volume = (
            f"it predicts {abs(found):.0%} {'more' if found > 0 else 'less'} volume than raters "
            f"mark (90% interval {_signed(low)} to {_signed(high)})"
        )
        if self.verdict == "keep":
            return f"Keep the map: {volume}, and ±{self.bound:.0%} would not matter."
        if self.verdict == "too few cases":
            return (
                f"Too few cases to tell: {volume}. An error of {_signed(self.detectable)} would "
                "have been found with 80% probability."
            )
        what = {
            "affine": "An affine update of its log-odds is enough.",
            "refit": "A map fitted to the new cases is better than an affine update.",
            None: "But no update is better on patients left out: collect more cases for a new map.",
        }[self.recommended]
        doubt = "" if self.map_error_from != "unknown" else " as far as the map itself is exact"
        return f"Refit: {volume}, which is more than chance{doubt} (p = {_p(self.p_value)}). {what}"

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers as JSON has them, the maps aside; what is infinite is None."""
        departures = {
            name: {
                **asdict(one),
                "p_value": one.p_value,
                "interval": list(one.interval(LEVEL)),
                "interval_level": LEVEL,
                "size": SIZE * share,
            }
            for name, one, share in zip(("volume", "tilt"), (self.volume, self.tilt), SHARES, strict=True)
        }
        left_out = ("volume", "tilt", "old", "affine", "refitted")
        said = {name: value for name, value in vars(self).items() if name not in left_out}
        gains = {name: value._asdict() for name, value in said.items() if isinstance(value, Gain)}
        relative = {
            "volume_ratio": math.exp(self.volume.estimate),
            "relative_volume_error": _relative(self.volume.estimate),
            "relative_volume_interval": list(self.volume_interval),
        }
        whole = {"sentence": self.sentence, **said, **gains, **relative, **departures}
        found: dict[str, Any] = _finite(whole)
        return found


def audit_map(
    calibrator: Calibrator,
    tallies: StoredTallies,
    calibration: StoredTallies | None = None,
    *,
    bound: float = 0.25,
    progress: Progress | None = None,
) -> Audit:
    r"""Say whether a map is right for new cases.

    The null hypothesis is that the map of all patients like those of the fit is that of all
    patients like the new ones. It is rejected at 5% if volume or tilt (`Departures`) departs by
    more than both sets of patients differ within themselves. The map is kept if it is not rejected
    and the 90% intervals of its own volume error and tilt lie within the bound: if an error is
    larger than the bound, that happens with a probability of 5% at most (Schuirmann 1987). That a
    test has found nothing is no reason to keep it (Hoenig and Heisey 2001).

    Parameters
    ----------
    calibrator
        Fitted, or loaded from a file.
    tallies
        Of the new cases, in the region that the map is for.
    calibration
        The tallies that the map was fitted to, for its own error. Without them that is taken from
        the band that is kept with the map, as if it erred at all scores in the same direction;
        without one it is not known, and the test says "refit" too often.
    bound
        Relative error that would not matter, above 0 and below 1.
    progress
        Told of the patients if they take more than two seconds.

    Raises
    ------
    ValueError
        The map has no target; fewer than two new patients have marked voxels; the map was fitted on
        some of these very cases; or `calibration` is not what it was fitted to.
    """
    bound, progress = number_between(bound, "bound", 0, 1), progress or Progress()
    fit = calibrator.tally_fit
    if fit.target == "none":
        raise InputError("the map is the identity (target none): there is nothing to keep or refit")
    old, bounds = calibrator.map_, (fit.floor, fit.ceiling)
    new = _Patients(calibrator, tallies, progress)
    answers = [Answers.of(fit, group.total) for group in new.groups("Auditing")]
    total = Answers.of(fit, new.total)
    found = Departures(old, answers, total)
    source: Source = "unknown"
    errors: MapErrors | None = None
    if calibration is not None:
        source, errors = "tallies", _errors_by(found, calibrator, calibration, progress)
    elif calibrator.band_ is not None:
        source, errors = "band", found.within(calibrator.band_)
    volume, tilt = found.measured(errors)
    both = tuple(zip((volume, tilt), SHARES, strict=True))
    p_value = min(1.0, *(one.p_value / share for one, share in both))
    within = np.log1p([-bound, bound])
    low, high = volume.interval(LEVEL)
    verdict: Verdict = "too few cases"
    if p_value < SIZE:
        verdict = "refit"
    elif within[0] <= low and high <= within[1] and np.abs(tilt.interval(LEVEL)).max() <= bound:
        verdict = "keep"

    affine = AffineUpdates(old, answers, *bounds)
    gains = _gains(calibrator, new, answers, affine)
    changed, updates = affine.fit()
    recommended: Update | None = None
    if verdict == "refit":
        recommended = "refit" if gains[2].gain > gains[2].error else "affine"
        if gains[recommended == "refit"].gain <= 0:
            recommended = None
    voxels = [_voxels(old, group) for group in answers]
    calibrated = miscalibration_if_calibrated(voxels)
    return Audit(
        verdict,
        p_value,
        volume,
        tilt,
        bound,
        _relative(volume.detectable(SIZE * SHARES[0])),
        source,
        len(tallies),
        len(answers),
        found.effective_groups,
        corp(all_of(voxels)).miscalibration,
        float(calibrated.mean()),
        float(np.quantile(calibrated, 0.95)),
        updates,
        *gains,
        recommended,
        old,
        changed,
        bounded(fit(new.seen), *bounds),
    )


def updated_calibrator(
    audit: Audit, calibrator: Calibrator, tallies: StoredTallies, region: str
) -> Calibrator:
    """Return the calibrator that an audit recommends, made of the same tallies.

    An affine update keeps what the file says of the fit, and adds "update": a, b, and the number of
    new cases. Facts, thresholds and band, which were those of the old map, are left out.

    Raises
    ------
    ValueError
        The audit recommends none.
    """
    if audit.recommended is None:
        raise InputError(f"there is no map to replace it with: {audit.sentence}")
    if audit.recommended == "refit":
        asked = {
            **calibrator.made_with_,
            "bins": calibrator.bins_used,
            "floor": calibrator.floor_,
            "ceiling": calibrator.ceiling_,
            "exact": False,
            "region_rule": None,
            "ensemble": None,
        }
        if asked["case_weight"] not in ("voxels", "cases"):
            asked["case_weight"] = "voxels"
        return fit_tallies(Calibrator(**asked), tallies, region)
    made_of = calibrator.provenance_
    update = {**audit.updates, "cases": audit.cases, "patients": audit.patients}
    cases = {*(calibrator.fitted_on_ or ()), *tallies.fitted_cases().values()}
    known = None if calibrator.fitted_on_ is None else [one.to_json() for one in sorted(cases, key=str)]
    updated = Calibrator(**calibrator.made_with_)
    updated.restore(
        audit.affine,
        {**made_of, "facts": None, "thresholds": None, "update": update, "fitted_on": known},
    )
    return updated


class _Patients:
    """Patients of stored tallies, as a map weighs them."""

    def __init__(self, calibrator: Calibrator, tallies: StoredTallies, progress: Progress) -> None:
        self._tallies, self._progress = tallies, progress
        self._fit = calibrator.tally_fit
        self._weights = tallies.weights(calibrator.made_with_["case_weight"])
        self._votes = self._fit.target == "majority"
        self.total = tallies.total(
            self._weights, same_raters=self._fit.target in ("single", "hard")
        )
        self.seen = self._fit.seen(self.total)

    def groups(self, work: str) -> Iterator[GroupTally]:
        """Go through them; `work` is what is told while it is done."""
        return each_patient(
            self._tallies,
            self._weights,
            self._tallies.groups(),
            self._progress,
            work,
            self._votes,
        )

    def without(self, group: GroupTally) -> ScoreTally:
        """Return what the map follows of all others."""
        return self.seen.minus(self._fit.seen(group.total))


def _errors_by(
    found: Departures, calibrator: Calibrator, stored: StoredTallies, progress: Progress
) -> MapErrors:
    """Return the errors of the map by the tallies that it was fitted to."""
    if calibrator.fitted_on_ is not None:
        known = {case.case for case in calibrator.fitted_on_}
        stored = stored.of([k for k, case in stored.fitted_cases().items() if case.case in known])
        if len(stored) < len(known):
            raise InputError(
                f"it has {len(stored)} of the {len(known)} cases that the map was fitted to; name "
                "all stores of the fit",
                argument="calibration",
            )
    fit, patients = calibrator.tally_fit, _Patients(calibrator, stored, progress)
    fitted, at = bounded(fit(patients.seen), fit.floor, fit.ceiling), Answers.of(fit, patients.total)
    off = float(np.abs(at.mapped(fitted) - at.mapped(calibrator.map_)).max(initial=0))
    if off > _SAME_MAP:
        raise InputError(
            f"they are not the tallies that the map was fitted to: theirs differs by up to "
            f"{off:.3g}; name the store that the fit has written",
            argument="calibration",
        )
    if len(stored.groups()) < 2:
        raise InputError(
            "the map was fitted to one patient, which says nothing of its error; leave it out",
            argument="calibration",
        )

    def leave_out(group: GroupTally) -> tuple[CalibrationMap, float]:
        marked = float(fit.yes(fit.seen(group.total)).sum())
        rest = patients.without(group)
        return bounded(fit(rest), fit.floor, fit.ceiling) if rest.voxels else fitted, marked

    return found.jackknifed(ahead(leave_out, patients.groups("Error of the map")))


def _gains(
    calibrator: Calibrator, new: _Patients, answers: Sequence[Answers], affine: AffineUpdates
) -> tuple[Gain, Gain, Gain]:
    """Return how much better the updates are in each patient than the map, made of the others."""
    fit, old = calibrator.tally_fit, calibrator.map_

    def of(numbered: tuple[int, GroupTally]) -> tuple[float, float]:
        c, group = numbered
        rest, own = new.without(group), answers[c]
        refitted = old
        if rest.voxels and fit.yes(rest).any():
            refitted = bounded(fit(rest), fit.floor, fit.ceiling)
        before, *after = (_loss(own, one) for one in (old, affine.fit(c)[0], refitted))
        return before - after[0], before - after[1]

    by_affine, by_refit = np.array([*ahead(of, enumerate(new.groups("Updates")))]).T
    voxels = math.fsum(group.count.sum() for group in answers)
    return (
        _gain(by_affine, voxels),
        _gain(by_refit, voxels),
        _gain(by_refit - by_affine, voxels),
    )


def _loss(answers: Answers, by: CalibrationMap) -> float:
    """Return the sum of (m - MHR)² less that of MHR², which all maps have."""
    m = answers.mapped(by)
    return float(m @ (answers.count * m - 2 * answers.yes))


def _gain(each: Any, voxels: float) -> Gain:
    number, whole = len(each), math.fsum(each)
    squares = math.fsum((each - whole / number) ** 2)
    return Gain(whole / voxels, math.sqrt(squares * number / (number - 1)) / voxels)


def _voxels(by: CalibrationMap, answers: Answers) -> MappedVoxels:
    """Return the voxels by mapped score; squares of responses have no part in the MCB."""
    m = answers.mapped(by)
    return all_of([MappedVoxels(m, answers.count, answers.yes, np.zeros_like(m))])


def _relative(log_ratio: float) -> float:
    return math.expm1(min(log_ratio, 700.0))


def _signed(share: float) -> str:
    return f"{share:+.0%}" if share < 10 else "more than +1000%"


def _p(value: float) -> str:
    return f"{value:.3f}".removeprefix("0") if value >= 0.001 else "below .001"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
