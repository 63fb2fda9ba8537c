"""Choice of the number of bins by cross-validation over cases, from tallies alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from twintrack.calibration.equal_mass import EVERY_CELL, Bins, bins_asked
from twintrack.calibration.map_fit import Target, fit_map
from twintrack.calibration.score_tally import ScoreTally
from twintrack.calibration.target_tally import target_tally
from twintrack.errors import InputError

CANDIDATES: tuple[Bins, ...] = (5, 10, 20, 50, 100, 250, 500, 1000, 2000, 5000, "cells")


@dataclass(frozen=True)
class BinChoice:
    """Outcome of the cross-validation; what is given for every M tried is by M.

    Attributes
    ----------
    bins : int or "cells"
        The M that was chosen: the fewest bins whose score is above the least by no more than one
        standard error of that difference.
    best : int or "cells"
        The M with the least score; the fewest bins of several.
    scores : dict
        Mean squared difference between the calibrated score and the raters' answers on held-out
        voxels (the Brier score, averaged over voxels and raters).
    standard_errors : dict
        Standard error of the difference between the score and that of `best`, over the folds.
    zero_votes : dict
        Share of the held-out votes at scores that the map sends to exactly 0.
    folds : int
    """

    bins: Bins
    best: Bins
    scores: dict[Bins, float]
    standard_errors: dict[Bins, float]
    zero_votes: dict[Bins, float]
    folds: int

    def to_dict(self) -> dict[str, Any]:
        """Return the choice as JSON has it, with numbers of bins as text where they are keys."""
        by_bins = {
            name: {str(bins): value for bins, value in getattr(self, name).items()}
            for name in ("scores", "standard_errors", "zero_votes")
        }
        return {"folds": self.folds, "chosen": self.bins, "best": self.best, **by_bins}


def choose_bins(
    tallies: Sequence[ScoreTally],
    target: Target,
    rater: int,
    folds: int,
    seed: int,
    candidates: Sequence[Bins] = CANDIDATES,
) -> BinChoice:
    """Choose M by K-fold cross-validation over cases.

    The cases are dealt at random into `folds` groups (each case alone if there are fewer cases than
    folds). Each group in turn is held out: the map is fitted to the others and scored on it. With
    binary answers Σ_i (m - y_i)² = N m² - 2 m Σ y_i + Σ y_i, so a cell's count and votes are
    enough; within a cell the map is taken at the cell's mean score.

    The fewest bins are chosen that are not worse than the best by more than one standard error
    (Breiman et al. 1984), which is that of the *difference*: cases differ far more from one another
    than maps do, so that the error of the best's own mean would let a map pass that is worse in
    every fold. With loss L_f, voxels V_f and d_f = L_f - L_f(best) of K folds the mean difference
    is D = Σ d_f / Σ V_f, a ratio of sums, and its squared error K / (K - 1) · Σ (d_f - D V_f)²
    / (Σ V_f)².

    Parameters
    ----------
    tallies
        Of cases, or of groups or sums of them, which are held out together.
    target, rater
        As of `Calibrator`.
    folds, seed
        Number of folds, and seed of the split.
    candidates
        Numbers of bins to try, ascending.

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
    everything = ScoreTally.of_all(tallies)
    losses: dict[Bins, list[float]] = {bins: [] for bins in candidates}
    at_zero = dict.fromkeys(candidates, 0.0)
    voxels, votes = [], 0.0
    for fold in dealt:
        held = ScoreTally.of_all([tallies[case] for case in fold])
        rest = target_tally(everything - held, target, rater)
        held = target_tally(held, target, rater)
        if held.voxels == 0 or rest.voxels == 0:
            continue
        cells = held.equal_mass_bins(EVERY_CELL)
        asked = cells.votes[:, rater] if target == "single" else cells.response
        voxels.append(held.voxels)
        votes += float(asked.sum())
        for bins in candidates:
            fitted = fit_map(rest.equal_mass_bins(bins_asked(bins)), target, rater)
            m = fitted(cells.mean_score)
            losses[bins].append(float(np.sum(cells.count * m * m - 2 * m * asked + asked)))
            at_zero[bins] += float(asked[m == 0].sum())
    if not voxels:
        raise InputError("only one case has voxels in the region: bins='auto' needs two")
    # Summed exactly, so that the order of the folds does not matter.
    scores = {bins: math.fsum(losses[bins]) / sum(voxels) for bins in candidates}
    best = min(candidates, key=lambda bins: (scores[bins], candidates.index(bins)))
    errors = {bins: _error(losses[bins], losses[best], voxels) for bins in candidates}
    chosen = next(bins for bins in candidates if scores[bins] - scores[best] <= errors[bins])
    shares = {bins: at_zero[bins] / votes if votes else 0.0 for bins in candidates}
    return BinChoice(chosen, best, scores, errors, shares, len(dealt))


def _error(losses: Sequence[float], least: Sequence[float], voxels: Sequence[int]) -> float:
    """Return the standard error of the mean difference of two losses; 0 where one fold counts."""
    folds, of_all = len(voxels), sum(voxels)
    if folds < 2:
        return 0.0
    differences = [loss - other for loss, other in zip(losses, least, strict=True)]
    mean = math.fsum(differences) / of_all
    squares = ((d - mean * count) ** 2 for d, count in zip(differences, voxels, strict=True))
    return math.sqrt(folds / (folds - 1) * math.fsum(squares)) / of_all


def deal(cases: int, folds: int, seed: int) -> list[list[int]]:
    """Return the numbers of the cases in each of at most `folds` groups, none of them empty."""
    folds = min(folds, cases)
    order = np.random.default_rng(seed).permutation(cases).tolist()
    return [order[fold::folds] for fold in range(folds)]
