"""Audit: whether a map is still right for new cases, and what to do if it is not."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from twintrack.arrays.numbers import number_between
from twintrack.arrays.threads import ahead
from twintrack.calibration.calibration_map import CalibrationMap
from twintrack.calibration.calibrator import Calibrator
from twintrack.calibration.departures import Answers, Departures, MapErrors
from twintrack.calibration.fitted_on import Overlap, find_overlap, told
from twintrack.calibration.group_tally import GroupTally
from twintrack.calibration.map_bounds import bounded
from twintrack.calibration.map_updates import AffineUpdates
from twintrack.calibration.score_tally import ScoreTally
from twintrack.errors import InputError
from twintrack.metrics.corp import corp, miscalibration_if_calibrated
from twintrack.metrics.mapped_voxels import MappedVoxels, all_of
from twintrack.runs.audit_result import SHARES, SIZE, Audit, Gain, Source, Update, judged, relative
from twintrack.runs.case_band import each_patient
from twintrack.runs.fit import fit_tallies
from twintrack.runs.progress import Progress
from twintrack.runs.stored_tallies import StoredTallies

_SAME_MAP = 0.01  # cuts of exact=True move a map by less


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
    check_question(calibrator, bound)
    fit, progress = calibrator.tally_fit, progress or Progress()
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
    p_value, verdict = judged(volume, tilt, bound)

    affine = AffineUpdates(old, answers, *bounds)
    gains = _gains(calibrator, new, answers, affine)
    changed, updates = affine.fit()
    recommended: Update | None = None
    if verdict == "refit":
        recommended = "refit" if gains[2].gain > gains[2].error else "affine"
        if gains[recommended == "refit"].gain <= 0:
            recommended = None
    voxels = [_voxels(old, group) for group in answers]
    return Audit(
        verdict,
        p_value,
        volume,
        tilt,
        bound,
        relative(volume.detectable(SIZE * SHARES[0])),
        source,
        len(tallies),
        len(answers),
        found.effective_groups,
        corp(all_of(voxels)).miscalibration,
        miscalibration_if_calibrated(voxels),
        updates,
        *gains,
        recommended,
        old,
        changed,
        bounded(fit(new.seen), *bounds),
    )


def check_question(calibrator: Calibrator, bound: float) -> None:
    """Raise InputError if there is nothing to ask of a map, or the bound makes no sense."""
    number_between(bound, "bound", 0, 1)
    if calibrator.made_with_["target"] == "none":
        raise InputError("the map is the identity (target none): there is nothing to keep or refit")


def check_region(calibrator: Calibrator, region: str) -> None:
    """Raise InputError if new cases count other voxels than those that the map was fitted to."""
    if region != calibrator.region_:
        raise InputError(
            f"the map was fitted to the region {calibrator.region_}, and is not to be judged by "
            f"another: tally the new cases with --region {calibrator.region_}",
            argument="region",
            value=region,
        )


def overlap_with(calibrator: Calibrator, tallies: StoredTallies) -> Overlap:
    """Return which of the new cases a map was fitted on, as far as its file tells."""
    scores = {case: one.score for case, one in tallies.fitted_cases().items()}
    patients = {case: who for case, who in tallies.patients().items() if who is not None}
    return find_overlap(calibrator.fitted_on_ or (), scores, patients)


def check_overlap(overlap: Overlap, cases: int) -> None:
    """Raise InputError if a map was fitted on the very scores of some of the new cases."""
    if "same_case" in overlap or "same_score" in overlap:
        raise InputError(
            f"{told(overlap, cases)}: an audit of a map on its own cases would always keep it"
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
    before = made_of.get("update") or {"a": 1.0, "b": 0.0, "cases": 0, "patients": 0}
    a, b = audit.updates["a"], audit.updates["b"]
    update = {
        "a": a * before["a"],
        "b": a * before["b"] + b,
        "cases": before["cases"] + audit.cases,
        "patients": before["patients"] + audit.patients,
    }
    cases = {*(calibrator.fitted_on_ or ()), *tallies.fitted_cases().values()}
    known = (
        None if calibrator.fitted_on_ is None else [one.to_json() for one in sorted(cases, key=str)]
    )
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
    if calibrator.provenance_.get("update"):
        raise InputError(
            "the map was updated by an audit, so its error is not that of a fit; leave it out",
            argument="calibration",
        )
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
    fitted, at = (
        bounded(fit(patients.seen), fit.floor, fit.ceiling),
        Answers.of(fit, patients.total),
    )
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
    """Return the voxels by mapped score, in steps of float16: patients have theirs in common.

    Squares of responses have no part in the MCB.
    """
    m = answers.mapped(by).astype(np.float16).astype(np.float64)
    return all_of([MappedVoxels(m, answers.count, answers.yes, np.zeros_like(m))])
