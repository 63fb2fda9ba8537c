"""Experimental: a score above which nearly all of what raters mark lies, in new cases too."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from twintrack.arrays.by_value import ByValue
from twintrack.arrays.numbers import number_between
from twintrack.calibration.equal_mass import EVERY_CELL
from twintrack.calibration.score_tally import ScoreTally
from twintrack.errors import InputError


@dataclass(frozen=True, eq=False)
class OuterContour(ByValue):
    """A conformal outer contour; experimental, its definition may change.

    Attributes
    ----------
    score : float
        Voxels with at least this score are inside of the contour.
    alpha : float
        The largest share of a case's votes that may lie outside, on average over new cases.
    missed : float
        The share that does lie outside, on average over these cases.
    cases : int
        Number of cases, those without votes not counted.
    """

    score: float
    alpha: float
    missed: float
    cases: int


def outer_contour(cases: Iterable[ScoreTally], alpha: float = 0.1) -> OuterContour:
    r"""Return the highest score for which new cases keep all but `alpha` of their votes inside.

    With :math:`L_c(\lambda) = 1 - votes_c(s \ge \lambda) / votes_c` of each of n cases, it is the
    largest :math:`\lambda` with :math:`(\sum_c L_c(\lambda) + 1) / (n + 1) \le \alpha`: the mean
    share of votes outside is then at most `alpha` in expectation over another case like these
    (conformal risk control; Angelopoulos et al. 2024).

    Parameters
    ----------
    cases
        The tally of each case, of independent patients. Votes are mean responses (MHR).
    alpha
        In (0, 1).

    Returns
    -------
    OuterContour
        Exact for 16-bit scores; of wider ones the contour is a cell of the score grid too wide, at
        most 1/1024 of the distance to the nearer of 0 and 1.

    Raises
    ------
    ValueError
        There are too few cases with votes: at least 1/alpha - 1 are needed.
    """
    alpha = number_between(alpha, "alpha", 0, 1)
    at, votes, own = [], [], []
    types: set[str] = set()
    for case in cases:
        if case.response > 0:
            cells = case.equal_mass_bins(EVERY_CELL)
            at.append(cells.mean_score)
            votes.append(cells.response / cells.response.sum())
            own.append(case.cells)
            types |= case.score_types
    n = len(votes)
    if 1 / (n + 1) > alpha:
        raise InputError(
            f"an outer contour for alpha {alpha:g} needs {math.ceil(1 / alpha - 1)} cases with "
            f"votes or more, here {n}"
        )
    occurring, place = np.unique(np.concatenate(own), return_inverse=True)
    share = np.bincount(place, np.concatenate(votes), len(occurring))
    lowest = np.full(len(occurring), np.inf)
    np.minimum.at(lowest, place, np.concatenate(at))
    below = np.concatenate([[0.0], np.cumsum(share)[:-1]])  # outside, if the cell is the lowest
    last = int(np.flatnonzero((below + 1) / (n + 1) <= alpha)[-1])
    score = float(lowest[last])
    if not types <= {"float16", "bfloat16"}:
        # The mean of a cell is above its least score; that of the cell before is not.
        score = float(lowest[last - 1]) if last else 0.0
    return OuterContour(score, alpha, float(below[last]) / n, n)
