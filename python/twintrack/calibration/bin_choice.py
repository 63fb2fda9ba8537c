"""Choice of the number of bins by cross-validation over cases, from tallies alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from twintrack.calibration.map_fit import Target, fit_map
from twintrack.calibration.score_tally import ScoreTally
from twintrack.errors import InputError

CANDIDATES = (5, 10, 20, 50, 100, 250, 500, 1000, 2000)


@dataclass(frozen=True)
class BinChoice:
    """Outcome of the cross-validation.

    Attributes
    ----------
    bins : int
        The M with the least score; the smallest of several.
    scores : dict of int to float
        For every M tried, the mean squared difference between the calibrated score and the raters'
        answers on held-out voxels (the Brier score, averaged over voxels and raters).
    folds : int
    """

    bins: int
    scores: dict[int, float]
    folds: int


def choose_bins(
    tallies: Sequence[ScoreTally],
    target: Target,
    rater: int,
    folds: int,
    seed: int,
    candidates: Sequence[int] = CANDIDATES,
) -> BinChoice:
    """Choose M by K-fold cross-validation over cases.

    The cases are dealt at random into `folds` groups (each case alone if there are fewer cases than
    folds). Each group in turn is held out: the map is fitted to the others and scored on it. With
    binary answers Σ_i (m - y_i)² = N m² - 2 m Σ y_i + Σ y_i, so a cell's count and votes are
    enough; within a cell the map is taken at the cell's mean score.

    Raises
    ------
    ValueError
        If there are fewer than two cases or folds.
    """
    cases = len(tallies)
    if cases < 2 or folds < 2:
        raise InputError(
            f"bins='auto' needs at least two cases and two folds, here {cases} and {folds}; "
            "name the cases in partial_fit, or give a number of bins"
        )
    dealt = deal(cases, folds, seed)
    everything = ScoreTally.of_all(tallies).dense()
    losses: dict[int, list[float]] = {bins: [] for bins in candidates}
    voxels = 0
    for fold in dealt:
        held = ScoreTally.of_all([tallies[case] for case in fold])
        rest = ScoreTally.from_dense(everything - held.dense())
        if held.voxels == 0 or rest.voxels == 0:
            continue
        # As many bins as cells: one bin per cell, with its mean score.
        cells = held.equal_mass_bins(held.voxels)
        asked = cells.votes[:, rater] if target == "single" else cells.votes.mean(axis=1)
        voxels += held.voxels
        for bins in candidates:
            fitted = fit_map(rest.equal_mass_bins(bins), target, rater)
            m = fitted(cells.mean_score)
            losses[bins].append(float(np.sum(cells.count * m * m - 2 * m * asked + asked)))
    if voxels == 0:
        raise InputError("only one case has voxels in the region: bins='auto' needs two")
    # Summed exactly, so that the order of the folds does not matter.
    scores = {bins: math.fsum(losses[bins]) / voxels for bins in candidates}
    return BinChoice(min(scores, key=lambda bins: (scores[bins], bins)), scores, len(dealt))


def deal(cases: int, folds: int, seed: int) -> list[list[int]]:
    """Return the numbers of the cases in each of at most `folds` groups, none of them empty."""
    folds = min(folds, cases)
    order = np.random.default_rng(seed).permutation(cases).tolist()
    return [order[fold::folds] for fold in range(folds)]
