"""Bins whose cuts are placed exactly, by reading the voxels again."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

from numpy.typing import ArrayLike

from twintrack import _core
from twintrack.arrays.bounds import with_roundings
from twintrack.arrays.case import open_case
from twintrack.calibration.equal_mass import EqualMassBins, bins_of_cells
from twintrack.calibration.score_tally import ScoreTally
from twintrack.errors import InputError


def refined_bins(
    tally: ScoreTally,
    bins: int,
    cases: Iterable[tuple[ArrayLike, ArrayLike, ArrayLike | None]],
) -> EqualMassBins:
    """Return equal-mass bins cut between scores rather than between grid cells.

    Parameters
    ----------
    tally : ScoreTally
        Tally of all the cases.
    bins : int
        Number of bins asked for.
    cases : iterable of (score, raters, region) that can be gone through several times
        The same voxels as in the tally. They are read once for 16- and 32-bit scores (twice if a
        cut falls among scores below 2^-24), a few times for float64. Arrays on a device are copied
        to host memory for it, one case at a time: there is no kernel for this pass.

    Raises
    ------
    RuntimeError
        If the voxels are not those of the tally.
    ValueError
        Not all raters looked at all voxels: there is no second pass for sets of raters.
    """
    sets = tally.by_set()
    everyone = tuple(range(tally.raters))
    if set(sets) != {everyone}:
        raise InputError(
            "exact cuts need voxels that all raters looked at: leave out exact=True (--exact), "
            "which changes nothing for 16-bit scores, or use raters who looked at all"
        )
    refinement = _core.CutRefinement(*sets[everyone].rows(), tally.raters, bins)
    while not refinement.done:
        for score, *rest in cases:
            with_roundings(functools.partial(_update, refinement), score, *rest)
        refinement.advance()
    return bins_of_cells(refinement.rows(), tally.raters, bins)


def _update(refinement: _core.CutRefinement, score: Any, raters: Any, region: Any) -> None:
    case = open_case(score, raters, region).on_host()
    refinement.update(case.score, case.raters, case.region)
