"""Thresholds of a map from the stored tallies of its cases, thousands of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from twintrack import _core
from twintrack.arrays.rater_sets import RaterSet
from twintrack.calibration.calibrator import Calibrator
from twintrack.calibration.score_tally import ScoreTally
from twintrack.calibration.thresholds import SetRows, ThresholdFinder
from twintrack.runs.engine import Outcome
from twintrack.runs.progress import Progress, once_it_takes_long
from twintrack.runs.stored_tallies import StoredTallies
from twintrack.runs.tally_pack import PackedTally

_AT_A_TIME = 8  # cases that a thread adds up


def find_thresholds(
    calibrator: Calibrator, tallies: StoredTallies, progress: Progress | None = None
) -> Calibrator:
    """Give a calibrator the thresholds that it would have if it held each case by itself.

    Parameters
    ----------
    calibrator
        Fitted to sums of the cases, which tell all but the Dice.
    tallies
        Its cases, each of which is read once more.
    progress
        Told of the cases if they take more than two seconds.

    Raises
    ------
    ValueError
        A tally is damaged; names the file.
    """
    finder = ThresholdFinder(calibrator.map_, ScoreTally.of_all([*calibrator.tallies_.values()]))

    def find(cases: Sequence[str]) -> tuple[ThresholdFinder, list[Outcome]]:
        found, told = finder.apart(), []
        for case, packed in tallies.of(cases).narrow():
            begin = time.monotonic()
            found.add(_rows(packed, finder))
            told.append(Outcome(case, "done", 0, time.monotonic() - begin))
        return found, told

    parts = [tallies.cases[k : k + _AT_A_TIME] for k in range(0, len(tallies), _AT_A_TIME)]
    # NumPy adds without the lock of the interpreter.
    with (
        once_it_takes_long(progress or Progress(), "Thresholds", len(tallies)) as tell,
        ThreadPoolExecutor(_core.max_threads()) as pool,
    ):
        for found, told in pool.map(find, parts):
            finder.merge(found)
            for outcome in told:
                tell(outcome)
    calibrator.thresholds_ = finder.thresholds()
    return calibrator


def _rows(packed: PackedTally, finder: ThresholdFinder) -> dict[RaterSet, SetRows]:
    """Return a case as `ThresholdFinder.add` takes it, narrow as it is stored."""
    starts = finder.starts.astype(np.int64)
    return {
        raters: (
            np.clip(starts - rows.first, 0, len(rows.columns[0]))
            if rows.cells is None
            else np.searchsorted(rows.cells, finder.starts),
            rows.columns,
        )
        for raters, rows in packed.sets.items()
    }
