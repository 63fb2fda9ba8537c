"""Band of a map over resampled cases, for thousands of stored tallies.

`Calibrator.bootstrap_band` adds up the drawn cases' tallies cell by cell, which is exact and takes
minutes for 10,000 cases. Here the cells are first joined into groups of neighbours that hold equal
shares of all voxels, and all draws are one matrix product.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from twintrack.arrays.numbers import number_between, whole_number
from twintrack.calibration.calibrator import Calibrator
from twintrack.calibration.map_band import MapBand
from twintrack.calibration.map_fit import Target, fit_map
from twintrack.calibration.score_tally import EqualMassBins, ScoreTally
from twintrack.errors import InputError
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
    cases = len(tallies)
    if cases < 2:
        raise InputError(f"a band over cases needs at least two cases, here {cases}")
    resamples, level = whole_number(resamples, "resamples", 2), number_between(level, "level", 0, 1)
    seed = whole_number(seed, "seed", 0)
    at = np.linspace(0, 1, 1001) if scores is None else np.ascontiguousarray(scores, np.float64)
    made_with = calibrator.made_with_
    fitted_to, rater = made_with["target"], made_with["rater"]
    group_of, mean_score = _groups(tallies.total(), groups)
    made = len(mean_score)

    rng = np.random.default_rng(seed)
    times = np.empty((resamples, cases))
    for draw in times:
        draw[:] = np.bincount(rng.integers(cases, size=cases), minlength=cases)
    # Integers below 2^53, so the products are exact.
    sums: NDArray[np.float64] | None = None
    rows: list[NDArray[np.float64]] = []
    for number, (_, narrow) in enumerate(tallies.narrow(), start=1):
        columns = _columns(narrow, fitted_to, rater)
        index = _cells(narrow)
        rows.append(
            np.concatenate([np.bincount(group_of[index], c, minlength=made) for c in columns])
        )
        if len(rows) == _CHUNK or number == cases:
            part = times[:, number - len(rows) : number] @ np.stack(rows)
            sums = part if sums is None else sums + part
            rows = []
    assert sums is not None  # noqa: S101 - there are cases
    # The votes of all raters together, out of N for each voxel, are those of one.
    target: Target = "single" if fitted_to == "mhr" else fitted_to
    answers = calibrator.n_raters_ if fitted_to == "mhr" else 1
    drawn = sums.reshape(resamples, -1, made)
    maps = np.stack(
        [_map(draw, mean_score, calibrator.n_bins_asked, target, answers, at) for draw in drawn]
    )
    low, high = np.quantile(maps, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return MapBand(at, calibrator.map_(at), low, high, level, resamples)


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


def _map(
    draw: NDArray[np.float64],
    mean_score: NDArray[np.float64],
    bins: int,
    target: Target,
    answers: int,
    at: NDArray[np.float64],
) -> NDArray[np.float64]:
    count, votes = draw[0], draw[1:]
    after = np.cumsum(count)
    if after[-1] == 0:
        return at
    # Cut k falls before voxel ⌊k V / bins⌋ and moves to the start of its group, as in `_core`.
    cuts = np.floor(np.arange(bins) * after[-1] / bins)
    starts = np.unique(np.searchsorted(after, cuts, side="right"))
    mass = np.add.reduceat(count, starts)
    made = EqualMassBins(
        count=(answers * mass).astype(np.uint64),  # as weights all the same
        mean_score=np.add.reduceat(count * mean_score, starts) / mass,
        votes=np.add.reduceat(votes, starts, axis=1).T.astype(np.uint64),
        asked=bins,
    )
    mapped: NDArray[np.float64] = fit_map(made, target, 0)(at)
    return mapped
