"""What no score can be better than: the noise of a response of few raters, and one more rater."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from twintrack.metrics.tally_evaluation import CountedScores


class RaterNoise(NamedTuple):
    """The floor of the raters, of voxels that at least two of them looked at.

    Attributes
    ----------
    noise
        Mean over voxels of k (N - k) / (N² (N - 1)), with k of N raters marking the voxel: the
        unbiased estimate of the variance of an MHR of N raters. A Brier score against the MHR is as
        much too high: *excess Brier* = Brier - noise.
    one_more
        Mean over voxels of k (N - k) / (N - 1)²: the Brier score of each rater, left out, against
        the mean of the others. What one more expert would score.
    voxels
        Their number; NaN above if there are none.
    """

    noise: float
    one_more: float
    voxels: int


def rater_noise(tally: CountedScores) -> RaterNoise:
    """Return the floor of the raters; `tally` is a `ScoreTally` that counts votes.

    Raises
    ------
    ValueError
        The tally is of an earlier version, without counts of voxels by number of votes.
    """
    return noise_of(
        np.concatenate([[rows.voxels.sum(dtype=np.uint64) - exactly.sum()], exactly])
        for rows in tally.cell_rows().values()
        for exactly in [np.array([own.sum(dtype=np.uint64) for own in rows.exactly])]
    )


def noise_of(sets: Iterable[NDArray[np.uint64]]) -> RaterNoise:
    """Return the floor of the raters, from voxels by number of votes.

    Parameters
    ----------
    sets
        For each set of N raters the voxels that exactly 0, 1, … N of them marked.
    """
    noise, one_more, voxels = [], [], 0
    for counts in sets:
        n = len(counts) - 1
        if n < 2:
            continue  # who disagrees with nobody tells nothing
        k = np.arange(n + 1)
        disagreeing = int((counts.astype(object) * k * (n - k)).sum())  # exact
        noise.append(disagreeing / (n * n * (n - 1)))
        one_more.append(disagreeing / (n - 1) ** 2)
        voxels += int(counts.sum())
    if voxels == 0:
        return RaterNoise(math.nan, math.nan, 0)
    return RaterNoise(math.fsum(noise) / voxels, math.fsum(one_more) / voxels, voxels)
