"""Weights of cases, as whole numbers: a weighted sum of tallies is a tally, exact as any."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from twintrack.calibration.score_tally import ScoreTally
from twintrack.errors import InputError

_MOST_MASS = 1 << 53  # weighted voxels: float64 holds whole numbers up to it
_MOST_SUM = 1 << 62
_LEAST_WEIGHT = 64  # rounding it to a whole number changes it by less than 1%


class Load(NamedTuple):
    """What a tally takes of the capacity of a weighted sum.

    Attributes
    ----------
    voxels
        Voxels of the tally.
    residual
        Its largest sum of residuals in a cell.
    answers
        Least common multiple of the numbers of raters who looked.
    response
        What the raters mark on average, in voxels.
    """

    voxels: int
    residual: int
    answers: int
    response: float

    @classmethod
    def of(cls, tally: ScoreTally) -> Load:
        """Return that of a tally."""
        rows = tally.set_rows()
        return cls(
            tally.voxels,
            max((int(sums[:, 1].max()) for _, sums in rows.values()), default=0),
            math.lcm(1, *map(len, rows)),
            tally.response,
        )


def equal_weights(voxels: Sequence[int]) -> list[float]:
    """Return the weights by which groups of so many voxels count the same; 0 for none."""
    return [1 / count if count else 0.0 for count in voxels]


def whole_weights(weights: Sequence[float], loads: Sequence[Load]) -> list[int]:
    """Return whole numbers in the ratio of the weights.

    Weights are multiplied by a power of two, the largest for which all weighted sums keep within 64
    bits, and rounded: ratios of small whole numbers are kept, others to better than 1%, usually
    to a millionth.

    Parameters
    ----------
    weights
        Of each case, finite and 0 or more; 0 leaves it out.
    loads
        Of its tally.

    Raises
    ------
    ValueError
        All are 0, or they differ by so much that the smallest cannot be told from 0.
    """
    mass = math.fsum(w * load.voxels for w, load in zip(weights, loads, strict=True))
    rest = math.fsum(w * load.residual for w, load in zip(weights, loads, strict=True))
    if mass == 0:
        raise InputError("no case with voxels has a weight above 0", argument="case_weight")
    answers = math.lcm(1, *(load.answers for load in loads))
    room = min(_MOST_MASS, _MOST_SUM // answers) / mass
    if rest > 0:
        room = min(room, _MOST_SUM / rest)
    exponent = math.floor(math.log2(room))
    whole = [round(math.ldexp(weight, exponent)) for weight in weights]
    least = min((w for w, weight in zip(whole, weights, strict=True) if weight > 0), default=1)
    if least < _LEAST_WEIGHT:
        raise InputError(
            f"weights from {min(w for w in weights if w > 0):.3g} to {max(weights):.3g} differ too "
            "much for this many voxels; choose closer weights or a smaller region",
            argument="case_weight",
        )
    divisor = math.gcd(*whole)
    return [w // divisor for w in whole]


def times(tally: ScoreTally, weight: int) -> ScoreTally:
    """Return a tally in which every voxel counts as many."""
    if weight == 1:
        return tally
    sets = {
        raters: (cells, sums * np.uint64(weight))
        for raters, (cells, sums) in tally.set_rows().items()
        if weight
    }
    return ScoreTally.of_rows(tally.raters, sets, [*tally.regions], [*tally.score_types])
