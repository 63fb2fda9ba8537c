"""Bins whose cuts are placed exactly, by reading the voxels again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from numpy.typing import ArrayLike

from twintrack import _core
from twintrack.arrays.case_arguments import check_one_case
from twintrack.arrays.device import device_case
from twintrack.arrays.host import on_device, rater_arrays, region_array, score_array
from twintrack.calibration.score_tally import EqualMassBins, ScoreTally


def refined_bins(
    tally: ScoreTally,
    bins: int,
    cases: Sequence[tuple[ArrayLike, ArrayLike, ArrayLike | None]]
    | Iterable[tuple[ArrayLike, ArrayLike, ArrayLike | None]],
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
    """
    refinement = _core.CutRefinement(*tally.rows(), bins)
    while not refinement.done:
        for score, raters, region in cases:
            check_one_case(score, raters)
            if on_device(score=score, raters=raters, region=region):
                refinement.update(*device_case(score, raters, region).fetched())
            else:
                refinement.update(score_array(score), rater_arrays(raters), region_array(region))
        refinement.advance()
    return EqualMassBins(*_core.equal_mass_bins(*refinement.rows(), bins), asked=int(bins))
