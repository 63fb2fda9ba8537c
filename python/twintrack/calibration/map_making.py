"""From gathered tallies to a map, with all that is to be told of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from twintrack.calibration.bin_choice import BinChoice, choose_bins
from twintrack.calibration.calibration_map import CalibrationMap
from twintrack.calibration.case_tallies import CaseTallies
from twintrack.calibration.cut_refinement import refined_bins
from twintrack.calibration.equal_mass import EVERY_CELL, Bins, EqualMassBins, bins_asked
from twintrack.calibration.map_bounds import auto_bounds, bounded
from twintrack.calibration.map_facts import MapFacts, map_facts
from twintrack.calibration.map_fit import Target, fit_map
from twintrack.calibration.parameters import CalibratorParameters
from twintrack.calibration.parametric import fit_parametric
from twintrack.calibration.score_tally import ScoreTally
from twintrack.calibration.target_tally import target_tally
from twintrack.errors import InputError


@dataclass(frozen=True, eq=False)
class MadeMap:
    """A map and how it came about.

    `choice` is None where the number of bins was given. `parameters` are those of a map that has
    some (`fit_parametric`), which has no bins.
    """

    fitted: CalibrationMap
    unbounded: CalibrationMap
    bins: EqualMassBins
    choice: BinChoice | None
    floor: float
    ceiling: float
    total: ScoreTally
    target: Target
    rater: int
    parameters: tuple[dict[str, float], ...] = ()

    @property
    def prevalence(self) -> float:
        """Share of the voxels that are tumour, by the answers that the map follows."""
        bins = self.bins
        yes = bins.votes[:, self.rater] if self.target == "single" else bins.response
        return float(yes.sum()) / float(bins.count.sum())

    def facts(self) -> MapFacts:
        """Return the facts of the map, which take as long as a few fits from a tally."""
        return map_facts(
            self.fitted,
            self.unbounded,
            self.bins,
            self.total.equal_mass_bins(EVERY_CELL),
            self.target,
            self.rater,
            self.choice is not None,
            has_bins=not self.parameters,
        )


def make_map(
    asked: CalibratorParameters,
    gathered: CaseTallies,
    total: ScoreTally,
    cases: Iterable[tuple[Any, Any, Any]] | None = None,
) -> MadeMap:
    """Fit a map as the parameters ask for.

    Parameters
    ----------
    asked
        Parameters that are checked; of any target but "none".
    gathered, total
        The tallies, and their sum, which has voxels.
    cases
        The voxels, where cuts are to be placed exactly.
    """
    target, rater = asked.target, asked.rater
    total = target_tally(total, target, rater)
    if total.voxels == 0:
        raise InputError("he looked at no voxel", argument="rater", value=rater)
    choice = None
    parameters: tuple[dict[str, float], ...] = ()
    number: Bins
    if asked.bins == "auto":
        choice = choose_bins(gathered.each_part(), target, rater, int(asked.folds), int(asked.seed))
        number = choice.bins
    else:
        number = asked.bins if asked.kind == "isotonic" else "cells"
    if cases is None:
        bins = total.equal_mass_bins(bins_asked(number))
    else:
        bins = refined_bins(total, bins_asked(number), cases)
    if asked.kind == "isotonic":
        unbounded = fit_map(bins, target, rater)
    else:
        unbounded, parameters = fit_parametric(asked.kind, bins, target, rater)
    floor, ceiling = asked.floor, asked.ceiling
    if "auto" in (floor, ceiling):
        low, high = auto_bounds(bins, target, rater, gathered.effective)
        ceiling = max(high, 0.0 if floor == "auto" else floor) if ceiling == "auto" else ceiling
        floor = min(low, ceiling) if floor == "auto" else floor
    fitted = bounded(unbounded, float(floor), float(ceiling))
    return MadeMap(
        fitted,
        unbounded,
        bins,
        choice,
        float(floor),
        float(ceiling),
        total,
        target,
        rater,
        parameters,
    )
