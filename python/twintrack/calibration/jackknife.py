"""Jackknife: how a map changes when one group of cases after the other is left out."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from twintrack.arrays.by_value import ByValue
from twintrack.arrays.threads import ahead
from twintrack.calibration.calibration_map import CalibrationMap
from twintrack.calibration.effective import effective_groups
from twintrack.calibration.equal_mass import EVERY_CELL
from twintrack.calibration.group_tally import GroupTally
from twintrack.calibration.score_tally import ScoreTally
from twintrack.calibration.tally_fit import TallyFit
from twintrack.calibration.volume_interval import VolumeSpread
from twintrack.errors import InputError

_Floats: TypeAlias = NDArray[np.float64]
_Cells: TypeAlias = NDArray[np.uint32]
_Volumes: TypeAlias = Sequence[tuple[float, float]]

CLIP = 1e-5  # of a map, before its log-odds are taken

_CHUNK = 64  # groups whose changes are held at a time


def log_odds(value: _Floats) -> _Floats:
    """Return log(m / (1 - m)) of a map's values, clipped at 1e-5 and 1 - 1e-5."""
    from scipy.special import logit  # SciPy takes its time to be imported

    return np.asarray(logit(np.clip(value, CLIP, 1 - CLIP)))


@dataclass(frozen=True, eq=False)
class Spread(ByValue):
    """What `jackknife` finds at each of S scores.

    Attributes
    ----------
    error : (S,) float64
        Standard error of the map's log-odds.
    local_groups : (S,) float64
        Effective number of groups by the rarer of the two answers around the score; 0 where only
        one is given.
    mixed : (S,) bool
        Whether there are raters who said yes, and who said no, in the blocks on both sides.
    effective_groups : float
        Effective number of groups by all of their votes; 0 if there are none.
    draws : (D, S) float64
        Sums of the groups' changes, each times a standard normal number.
    volumes : VolumeSpread or None
        Of the cases' volumes around those of the maps without their group; None where the cases of
        a group are known in sum alone.
    """

    error: _Floats
    local_groups: _Floats
    mixed: NDArray[np.bool_]
    effective_groups: float
    draws: _Floats
    volumes: VolumeSpread | None

    def quantile(self, where: NDArray[np.bool_], level: float) -> float:
        """Return the probability up to a normal number that no draw exceeds in a share of `level`.

        At none of the scores `where`, in standard errors, and to neither side.
        """
        from scipy.special import ndtr

        where = where & (self.error > 0)
        if not where.any():
            return (1 + level) / 2
        ratio = self.draws[:, where]
        ratio /= self.error[where]
        largest = np.maximum(ratio.max(axis=1), -ratio.min(axis=1))
        return max(float(ndtr(np.quantile(largest, level))), (1 + level) / 2)


def jackknife(
    fit: TallyFit,
    total: ScoreTally,
    groups: Iterable[GroupTally],
    scores: _Floats,
    draws: int = 0,
    seed: int = 0,
) -> Spread:
    """Leave each group out in turn, in time and memory that are linear in their number.

    Parameters
    ----------
    fit
        Makes the maps.
    total
        The sum of all groups.
    groups
        Gone through once.
    scores : (S,) ascending
    draws
        Number D of draws of all groups' changes with random signs and weights.
    seed
        Of the draws.

    Raises
    ------
    ValueError
        One group has all voxels.
    """

    def of(made: CalibrationMap) -> _Floats:
        # A map that is evaluated once is not worth its tables.
        return log_odds(np.interp(scores, made.x, made.y))

    total = _narrow(fit.seen(total))
    fitted = fit(total)
    around, whole, voxels = _Around(fitted, fit, total, scores), of(fitted), total.voxels
    memory = threading.local()

    def leave_out(group: GroupTally) -> tuple[float, _Floats, _Floats, _Volumes | None]:
        """Return a group's votes, its rarer answers, and what is changed by leaving it out.

        And the volumes of its cases, predicted and marked.
        """
        own, rest = fit.seen(group.total), fitted
        marked, its_voxels = fit.yes(own), own.voxels
        if its_voxels == voxels:
            raise InputError(
                "only one case, or patient, has voxels in the region: a band needs two"
            )
        change = np.zeros(len(scores))
        if fit.target != "none" and its_voxels:
            if not hasattr(memory, "of_rest"):
                memory.of_rest = {}
            rest = fit(total.minus(own, memory.of_rest))
            change = of(rest) - whole
        cases = None
        if group.cases is not None:
            cases = [fit.volumes(fit.seen(case), rest) for case in group.cases]
        return float(marked.sum()), around.rarer(own, marked), change, cases

    rng = np.random.default_rng(seed)
    squares, drawn = np.zeros(len(scores)), np.zeros((draws, len(scores)))
    weights: list[float] = []
    volumes: list[_Volumes | None] = []
    squares_around = np.zeros_like(around.total)
    chunk: list[_Floats] = []

    def draw() -> None:
        nonlocal drawn
        drawn += rng.standard_normal((draws, len(chunk))) @ np.stack(chunk)
        chunk.clear()

    for votes, rarer, change, cases in ahead(leave_out, groups):
        weights.append(votes)
        volumes.append(cases)
        squares_around += rarer * rarer
        change *= np.sqrt(1 - around.share(rarer))
        squares += change * change
        chunk += [change] * (draws > 0)
        if len(chunk) == _CHUNK:
            draw()
    if chunk:
        draw()
    local = around.total**2 / np.where(squares_around > 0, squares_around, 1)
    known = [cases for cases in volumes if cases is not None]
    return Spread(
        np.sqrt(squares),
        local[around.place],
        around.mixed,
        effective_groups(weights),
        drawn,
        VolumeSpread.of_groups(known) if len(known) == len(volumes) else None,
    )


def _narrow(tally: ScoreTally) -> ScoreTally:
    """Return a tally without numbers of votes, which a fit does not need."""
    rows = {
        raters: (cells, np.ascontiguousarray(sums[:, : 2 + len(raters)]))
        for raters, (cells, sums) in tally.set_rows().items()
    }
    return ScoreTally.of_rows(tally.raters, rows)


class _Around:
    """The voxels around each score: those of the isotonic blocks of the knots on both sides.

    A block reaches from half-way to the knot before it to half-way to the knot after it. On a knot
    there is one block.
    """

    def __init__(
        self, fitted: CalibrationMap, fit: TallyFit, total: ScoreTally, scores: _Floats
    ) -> None:
        means = total.equal_mass_bins(EVERY_CELL).mean_score
        cells = np.append(total.cells, np.iinfo(np.uint32).max)
        if fit.kind == "isotonic":
            blocks = _blocks(fitted, scores)
        else:  # all answers decide on all of the map
            blocks = np.tile([[-np.inf], [np.inf]] * 2, len(scores))
        ends = cells[np.searchsorted(means, blocks)]
        # Many scores have the same neighbours. Rows: begin and end of the lower and upper block.
        self._ends, place = np.unique(ends, axis=1, return_inverse=True)
        self.place = place.ravel()
        marked = fit.yes(total)
        # In each of the two blocks there is a yes, and a no.
        mixed = [
            self._between(total, answers, *self._ends[block : block + 2]) > 0
            for answers in (marked, total.counts - marked)
            for block in (0, 2)
        ]
        self.mixed = np.all(mixed, axis=0)[self.place]
        yes, both = self._answers(total, marked)
        self._yes_is_rarer = yes <= both - yes
        self.total = self.rarer(total, marked)

    def rarer(self, tally: ScoreTally, marked: _Floats) -> _Floats:
        """Return how often a tally has the rarer of the two answers; of its cells `marked` say yes.

        Which is the rarer around a score, the answers of all groups decide.
        """
        yes, both = self._answers(tally, marked)
        return np.where(self._yes_is_rarer, yes, both - yes)

    def share(self, rarer: _Floats) -> _Floats:
        """Return a group's share of the rarer answers around each score, of which it has some."""
        share = rarer / np.where(self.total > 0, self.total, 1)
        return np.clip(share, 0, 1)[self.place]

    def _answers(self, tally: ScoreTally, marked: _Floats) -> tuple[_Floats, _Floats]:
        first, last = self._ends[0], self._ends[3]
        return (
            self._between(tally, marked, first, last),
            self._between(tally, tally.counts, first, last),
        )

    def _between(
        self, tally: ScoreTally, of_cells: NDArray[Any], first: _Cells, last: _Cells
    ) -> _Floats:
        before = np.concatenate([[0], np.cumsum(of_cells, dtype=np.float64)])
        begin, end = (np.searchsorted(tally.cells, cells) for cells in (first, last))
        return np.asarray(before[end] - before[begin])


def _blocks(fitted: CalibrationMap, scores: _Floats) -> _Floats:
    """Return where the blocks below and above each score begin and end: (4, S)."""
    x, y = fitted.x, fitted.y
    between = np.concatenate([[-np.inf], (x[1:] + x[:-1]) / 2, [np.inf]])
    below = np.clip(np.searchsorted(x, scores, side="right") - 1, 0, None)
    above = np.clip(np.searchsorted(x, scores, side="left"), None, len(x) - 1)
    ends = [
        between[np.searchsorted(y, y[knot], side=side)]
        for knot in (below, above)
        for side in ("left", "right")
    ]
    return np.stack(ends)
