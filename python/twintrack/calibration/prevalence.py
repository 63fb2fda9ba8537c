"""Maps where another share of the voxels is tumour than in the fit."""

from __future__ import annotations

import math

from twintrack.arrays.numbers import number_between
from twintrack.calibration.calibration_map import CalibrationMap
from twintrack.calibration.calibrator import Calibrator
from twintrack.calibration.map_bounds import bounded
from twintrack.calibration.map_updates import composed
from twintrack.calibration.parametric import log_odds_map
from twintrack.errors import InputError


def of_prevalence(fitted: CalibrationMap, old: float, new: float) -> CalibrationMap:
    r"""Return the map where a share `new` of the voxels is tumour instead of a share `old`.

    By Bayes' rule, if scores of tumour and of other voxels are distributed as before (Saerens,
    Latinne and Decaestecker 2002):

    .. math::
        m' = \frac{w m}{w m + 1 - m}, \qquad w = \frac{new / (1 - new)}{old / (1 - old)}

    An exact 0 or 1 stays.
    """
    change = log_odds_map([1.0, _shift(old, new)])
    return composed(fitted, CalibrationMap([0.0, *change.x, 1.0], [0.0, *change.y, 1.0]))


def with_prevalence(
    calibrator: Calibrator, prevalence: float, fitted: float | None = None
) -> Calibrator:
    """Return a calibrator for scores of voxels of which another share is tumour.

    It is right where the prevalence alone has changed, as from a set enriched with tumours to a
    clinic. `twintrack audit` asks new cases whether it has.

    Parameters
    ----------
    calibrator
        Fitted.
    prevalence : float
        Share of the voxels that is tumour there, in (0, 1).
    fitted : float, optional
        The share that the map was fitted to; by default `Calibrator.prevalence_`.

    Returns
    -------
    Calibrator
        With the changed map (`of_prevalence`) within the same floor and ceiling, "update" and the
        new "prevalence" in its provenance, and without facts, thresholds and band, which were those
        of the map before.

    Raises
    ------
    ValueError
        A share is not between 0 and 1; or the file does not say what the map was fitted to.
    """
    old = calibrator.prevalence_ if fitted is None else fitted
    if old is None:
        raise InputError(
            "the map does not say what share of the voxels of its fit was tumour", argument="fitted"
        )
    new = number_between(prevalence, "prevalence", 0, 1)
    old = number_between(old, "fitted", 0, 1)
    made_of, known = calibrator.provenance_, calibrator.fitted_on_
    before = made_of.get("update") or {"a": 1.0, "b": 0.0, "cases": 0, "patients": 0}
    changed = Calibrator(**calibrator.made_with_)
    kept = (calibrator.floor_, calibrator.ceiling_)
    changed.restore(
        bounded(of_prevalence(calibrator.map_, old, new), *kept),
        {
            **made_of,
            "prevalence": new,
            "update": {**before, "b": before["b"] + _shift(old, new)},
            "facts": None,
            "thresholds": None,
            "fitted_on": None if known is None else [case.to_json() for case in known],
        },
    )
    return changed


def _shift(old: float, new: float) -> float:
    """Return the change of the log-odds."""
    return math.log(new / (1 - new)) - math.log(old / (1 - old))
