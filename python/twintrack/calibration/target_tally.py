"""The voxels and answers that a target asks of a tally."""

from __future__ import annotations

import numpy as np

from twintrack.calibration.map_fit import Target
from twintrack.calibration.score_tally import ScoreTally
from twintrack.errors import InputError


def target_tally(tally: ScoreTally, target: Target, rater: int) -> ScoreTally:
    """Return the tally that a map with this target is fitted to.

    Parameters
    ----------
    tally
        Of all raters.
    target, rater
        As of `Calibrator`: of "single" the voxels that the rater looked at; of "majority" one rater
        who marks what more than half of those who looked did; of others all.

    Raises
    ------
    ValueError
        For "majority", the tally is of an earlier version, which did not count votes by number.
    """
    if target == "single":
        return tally.seen_by(rater)
    if target != "majority":
        return tally
    if not tally.counts_votes:
        raise InputError(
            "the tally is of an earlier version, which did not count the voxels with exactly k "
            "votes: tally the voxels again (twintrack fit -i)",
            argument="target",
            value=target,
        )
    parts = [ScoreTally(1)]
    for raters, (cells, sums) in tally.set_rows().items():
        n = len(raters)
        marked = sums[:, 2 + n + n // 2 :].sum(axis=1, dtype=np.uint64)  # exactly k > n / 2
        rows = cells, np.stack([sums[:, 0], sums[:, 1], marked, marked], axis=1)
        parts.append(ScoreTally.of_rows(1, {(0,): rows}))
    return ScoreTally.of_all(parts)
