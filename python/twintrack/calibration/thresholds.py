"""Thresholds: where a mask begins on the calibrated scale, as tallies tell it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from twintrack import _core
from twintrack.arrays.rater_sets import RaterSet
from twintrack.calibration.calibration_map import CalibrationMap
from twintrack.calibration.case_tallies import CaseTallies
from twintrack.calibration.equal_mass import EVERY_CELL
from twintrack.calibration.score_tally import ScoreTally
from twintrack.errors import InputError

Threshold: TypeAlias = Literal["majority", "dice"] | float
"""What a mask is made by: a rule whose threshold is kept with the map, or a number."""

# 0.0005, 0.0015 … 0.9995: between the fractions that maps have as values, such as 2/5, so that no
# candidate depends on how such a value is rounded.
_STEPS = 1000
_CANDIDATES = np.arange(1, 2 * _STEPS, 2) / (2 * _STEPS)

# A Dice is rounded to whole multiples of this: integer sums do not depend on the order of cases.
_UNIT = 2.0**-40

_Ints: TypeAlias = NDArray[np.int64]

SetRows: TypeAlias = tuple[_Ints, Sequence[NDArray[Any]]]
"""Of a set of raters: the row at which each candidate's mask begins, and columns of `SetTally`."""

_WHY_NONE = {
    "majority": "its tallies are of an earlier version, which did not count the voxels with "
    "exactly k votes: tally the voxels again (twintrack fit -i), or give a number",
    "dice": "it was fitted to sums of several cases: add each case by itself, fit from a cohort or "
    "from stored tallies (twintrack fit), or give a number",
}


@dataclass(frozen=True)
class Thresholds:
    """Where a mask of calibrated scores begins: it is 1 where the score is above the threshold.

    Of the thresholds 0.0005, 0.0015 … 0.9995 the best is taken, and of a run of equally good ones
    the middle. A cell of the score grid is taken for its mean score, which is exact for 16-bit
    scores. Only voxels that the tallies count are looked at.

    Attributes
    ----------
    majority : float or None
        The mask differs in the fewest voxels from where more than half of the raters who looked
        mark: in the sum over all voxels, weighted as the map's. None where tallies of earlier
        versions do not tell it.
    dice : float or None
        The mean over cases of the mean over raters of the Dice of mask and rater, over the voxels
        that the rater looked at, is the highest. It is 1 where both mark nothing. Every case counts
        the same, but one of weight 0 not at all. None where cases are known in sums alone.
    """

    majority: float | None
    dice: float | None

    def to_dict(self) -> dict[str, float | None]:
        """Return them as JSON has them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Thresholds:
        """Return those that `to_dict` made this of."""
        return cls(content.get("majority"), content.get("dice"))


def mask_threshold(calibrator: object, asked: object) -> float:
    """Return the threshold of a mask, as a number.

    Parameters
    ----------
    calibrator
        Where the rules' thresholds are; None if there is none.
    asked
        "majority", "dice" or a number from 0 to 1.

    Raises
    ------
    InputError
        It is none of these, or the calibrator does not have it.
    TypeError
        It is neither text nor number.
    """

    def wrong(why: str) -> InputError:
        return InputError(why, argument="threshold", value=asked)

    rule = "it must be 'majority', 'dice' or a number from 0 to 1"
    if not isinstance(asked, (str, bool)):
        try:
            number = float(asked)  # type: ignore[arg-type]
        except TypeError as error:
            raise TypeError(f"threshold is {asked!r}; {rule}") from error
        if not 0 <= number <= 1:
            raise wrong("a score lies in [0, 1]")
        return number
    if asked not in _WHY_NONE:
        raise wrong(rule)
    if calibrator is None:
        raise wrong("only a calibrator has it, and there is none: give one, or a number")
    known = getattr(calibrator, "thresholds_", None)
    if known is None:
        raise wrong(
            "the map has no thresholds, as maps of earlier versions and of twintrack fit "
            "--leave-one-out: fit it again (twintrack fit --tallies), or give a number"
        )
    found: float | None = getattr(known, asked)
    if found is None:
        raise wrong(f"the map does not have it, as {_WHY_NONE[asked]}")
    return found


def case_thresholds(fitted: CalibrationMap, cases: CaseTallies) -> Thresholds:
    """Return the thresholds of a map from its cases, which voxels and weights are those of."""
    finder = ThresholdFinder(fitted, cases.total())
    single = cases.single_cases()
    for tally in single or ():
        finder.add(finder.rows_of(tally))
    return finder.thresholds(known_by_case=single is not None)


class ThresholdFinder:
    """Finds the thresholds of a map; cases are added one at a time, in any order.

    Parameters
    ----------
    fitted
        The map.
    total
        The sum of all cases.
    """

    def __init__(self, fitted: CalibrationMap, total: ScoreTally) -> None:
        self._total = total
        mean = total.equal_mass_bins(EVERY_CELL).mean_score
        calibrated = np.maximum.accumulate(np.interp(mean, fitted.x, fitted.y))
        first = np.searchsorted(calibrated, _CANDIDATES, side="right")
        self.starts: NDArray[np.uint32] = np.append(total.cells, np.uint32(_core.GRID_CELLS))[first]
        """The grid cell at which each candidate's mask begins."""
        self._dice: _Ints = np.zeros(_STEPS, np.int64)
        self._cases = 0

    def apart(self) -> ThresholdFinder:
        """Return one without cases, to add some to and then `merge`: for threads."""
        made = object.__new__(ThresholdFinder)
        made._total, made.starts = self._total, self.starts
        made._dice, made._cases = np.zeros(_STEPS, np.int64), 0
        return made

    def merge(self, other: ThresholdFinder) -> None:
        """Add the cases of another one of the same map."""
        self._dice += other._dice
        self._cases += other._cases

    def rows_of(self, tally: ScoreTally) -> dict[RaterSet, SetRows]:
        """Return a case as `add` takes it."""
        return {
            raters: (np.searchsorted(cells, self.starts), sums.T)
            for raters, (cells, sums) in tally.set_rows().items()
        }

    def add(self, case: Mapping[RaterSet, SetRows]) -> None:
        """Add a case; one without voxels does not count."""
        size: dict[int, _Ints | int] = {}  # of the mask where the rater looked
        marked: dict[int, int] = {}
        both: dict[int, _Ints | int] = {}
        for raters, (first, columns) in case.items():
            masked = _above(columns[0], first)[1]
            for rater, column in zip(raters, columns[2:], strict=False):
                votes, hit = _above(column, first)
                size[rater] = size.get(rater, 0) + masked
                marked[rater] = marked.get(rater, 0) + votes
                both[rater] = both.get(rater, 0) + hit
        if not size:
            return
        dice = np.zeros(_STEPS)
        for rater in sorted(size):
            sizes = size[rater] + marked[rater]
            dice += np.where(sizes == 0, 1.0, 2 * both[rater] / np.maximum(sizes, 1))
        self._dice += np.rint(dice / len(size) / _UNIT).astype(np.int64)
        self._cases += 1

    def thresholds(self, known_by_case: bool = True) -> Thresholds:
        """Return the thresholds; `known_by_case` says whether all cases were added."""
        dice = _best(self._dice) if known_by_case and self._cases else None
        return Thresholds(self._majority(), dice)

    def _majority(self) -> float | None:
        if not self._total.counts_votes:
            return None
        right = np.zeros(_STEPS, np.int64)
        for raters, (cells, sums) in self._total.set_rows().items():
            first = np.searchsorted(cells, self.starts)
            # Columns of exactly k votes begin with k = 1: those of k > n/2 are the last ones.
            majority = sums[:, 2 + len(raters) + len(raters) // 2 :].sum(axis=1)
            right += _above(majority, first)[1] - _above(sums[:, 0] - majority, first)[1]
        return _best(right)


def _above(column: NDArray[Any], first: _Ints) -> tuple[int, _Ints]:
    """Return the sum of a column, and its sums from each of the rows `first` on."""
    before = np.zeros(len(column) + 1, np.int64)
    np.cumsum(column.astype(np.int64), out=before[1:])  # faster than all at once
    return int(before[-1]), before[-1] - before[first]


def _best(value: _Ints) -> float:
    """Return the candidate with the highest value: the middle of the longest run of them."""
    best = np.flatnonzero(value == value.max())
    run = max(np.split(best, np.flatnonzero(np.diff(best) > 1) + 1), key=len)
    return (int(run[0]) + int(run[-1]) + 1) / (2 * _STEPS)
