"""Band of a map over resampled cases, for thousands of stored tallies.

`Calibrator.bootstrap_band` adds up the drawn cases' tallies cell by cell, which is exact and takes
minutes for 10,000 cases. Here the cells are first joined into groups of neighbours that hold equal
shares of all voxels, and all draws are one matrix product.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from twintrack.calibration.calibration_map import CalibrationMap
from twintrack.calibration.calibrator import Calibrator
from twintrack.calibration.equal_mass import bins_of_groups
from twintrack.calibration.map_band import MapBand, resampled_band
from twintrack.calibration.map_fit import IDENTITY, Target, fit_map
from twintrack.calibration.score_tally import ScoreTally
from twintrack.runs.stored_tallies import StoredTallies
from twintrack.runs.tally_pack import PackedTally

_CHUNK = 256  # cases in memory at a time


def band_over_cases(
    calibrator: Calibrator,
    tallies: StoredTallies,
    scores: ArrayLike | None = None,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    groups: int = 4096,
) -> MapBand:
    """Return the pointwise band of a fitted map over resampled cases.

    Parameters
    ----------
    calibrator
        Fitted; its map, target and number of bins are used.
    tallies
        What `read_tallies` gives; gone through twice.
    scores, resamples, level, seed
        As in `Calibrator.bootstrap_band`; the same seed draws the same cases.
    groups
        A cut between bins falls between groups, so a bin's mass is right to 2 / groups of all
        voxels; inside a group all draws have the mean score of all cases. With no more cells than
        groups the band is that of `Calibrator.bootstrap_band` but for scores inside a cell.

    Raises
    ------
    ValueError
        There are fewer than two cases, or resamples or level make no sense.
    """
    made_with, bins = calibrator.made_with_, calibrator.n_bins_asked
    fitted_to, rater = made_with["target"], made_with["rater"]
    # The votes of all raters together, out of N for each voxel, are those of one.
    target: Target = "single" if fitted_to == "mhr" else fitted_to
    answers = calibrator.n_raters_ if fitted_to == "mhr" else 1

    def maps(times: NDArray[np.int64]) -> Iterator[CalibrationMap]:
        group_of, mean_score = _groups(tallies.total(), groups)
        sums = _drawn_sums(tallies, times, group_of, fitted_to, rater)
        for count, *votes in sums.reshape(len(times), -1, len(mean_score)):
            if not count.any():
                yield IDENTITY
                continue
            made = bins_of_groups(count, mean_score, np.stack(votes), bins, answers)
            yield fit_map(made, target, 0)

    return resampled_band(calibrator.map_, len(tallies), maps, scores, resamples, level, seed)


def _groups(total: ScoreTally, groups: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the group of every cell of the grid, and the mean score of every group."""
    cells = total.equal_mass_bins(total.voxels)  # a bin for every cell
    before = np.cumsum(cells.count) - cells.count
    share = before.astype(np.float64) * min(groups, len(cells)) / total.voxels
    if len(cells) <= groups:
        share = np.arange(len(cells), dtype=np.float64)
    group = np.unique(share.astype(np.intp), return_inverse=True)[1]
    group_of = np.zeros(total.dense().shape[1], np.intp)
    group_of[total.cells] = group
    weights = cells.count.astype(np.float64)
    mean = np.bincount(group, weights * cells.mean_score) / np.bincount(group, weights)
    return group_of, mean


def _drawn_sums(
    tallies: StoredTallies,
    times: NDArray[np.int64],
    group_of: NDArray[np.intp],
    target: Target,
    rater: int,
) -> NDArray[np.float64]:
    """Return a row of sums for every draw: counts by group, then votes by group."""
    # Integers below 2^53, so the products are exact.
    drawn = times.astype(np.float64)
    sums = np.zeros(())
    rows: list[NDArray[np.float64]] = []
    for number, (_, narrow) in enumerate(tallies.narrow(), start=1):
        group = group_of[_cells(narrow)]
        made = group_of.max() + 1
        columns = _columns(narrow, target, rater)
        rows.append(np.concatenate([np.bincount(group, c, minlength=made) for c in columns]))
        if len(rows) == _CHUNK or number == len(tallies):
            sums = sums + drawn[:, number - len(rows) : number] @ np.stack(rows)
            rows = []
    return sums


def _cells(narrow: PackedTally) -> NDArray[np.intp]:
    if narrow.cells is not None:
        return narrow.cells.astype(np.intp)
    return np.arange(narrow.first, narrow.first + len(narrow.columns[0]))


def _columns(narrow: PackedTally, target: str, rater: int) -> list[NDArray[np.float64]]:
    """Return counts, and the votes that the target asks for: of all raters together for "mhr"."""
    count, _, *votes = narrow.columns
    if target == "mhr":
        votes = [np.asarray(np.sum(votes, axis=0, dtype=np.float64))]
    elif target == "single":
        votes = [votes[rater]]
    return [column.astype(np.float64) for column in (count, *votes)]
