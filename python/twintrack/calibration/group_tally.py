"""GroupTally: the cases of a group (a patient), which are left out of a fit together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from twintrack.calibration.case_weights import times
from twintrack.calibration.score_tally import ScoreTally


class GroupTally(NamedTuple):
    """Tallies of the cases of a group.

    Attributes
    ----------
    total
        Their sum, weighted as in the fit.
    cases
        Those that have voxels in the fit, each by itself, every voxel counted once; None where
        they are known in sum alone.
    """

    total: ScoreTally
    cases: Sequence[ScoreTally] | None

    @classmethod
    def of(cls, cases: Sequence[ScoreTally], weights: Sequence[int]) -> GroupTally:
        """Return the group of cases that count so many times each in the fit."""
        weighted = [times(tally, weight) for tally, weight in zip(cases, weights, strict=True)]
        total = weighted[0] if len(weighted) == 1 else ScoreTally.of_all(weighted)
        return cls(total, [c for c, own in zip(cases, weighted, strict=True) if own.voxels])
