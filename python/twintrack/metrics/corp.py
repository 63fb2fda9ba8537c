"""CORP: a reliability curve without bins, and the parts of the Brier score that go with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from twintrack import _core
from twintrack.arrays.by_value import ByValue
from twintrack.arrays.numbers import number_between, whole_number
from twintrack.errors import InputError
from twintrack.metrics.mapped_voxels import MappedVoxels, all_of

_Floats: TypeAlias = NDArray[np.float64]

_FEWEST = 2.0  # effective groups that a band goes by at least


@dataclass(frozen=True, eq=False)
class Corp(ByValue):
    """Consistent, optimally binned, reproducible reliability, by the pool-adjacent-violators rule.

    Attributes
    ----------
    value : (K,) float64
        Calibrated scores that occur, ascending.
    count : (K,) float64
        Voxels with that score.
    recalibrated : (K,) float64
        The reliability curve: isotonic regression of the MHR on the calibrated score. On the
        diagonal where the scores are calibrated.
    brier : float
        Mean of (m - MHR)², which is ``miscalibration - discrimination + uncertainty``.
    miscalibration : float
        What the Brier score loses by not being recalibrated (MCB); 0 is best.
    discrimination : float
        What the recalibrated scores gain over the mean MHR everywhere (DSC); large is best.
    uncertainty : float
        The Brier score of the mean MHR everywhere (UNC), of the answers alone.
    """

    value: NDArray[np.float64]
    count: NDArray[np.float64]
    recalibrated: NDArray[np.float64]
    brier: float
    miscalibration: float
    discrimination: float
    uncertainty: float


def corp(voxels: MappedVoxels) -> Corp:
    """Return the CORP reliability curve and decomposition (Dimitriadis, Gneiting, Jordan 2021).

    Raises
    ------
    ValueError
        There are no voxels.
    """
    if voxels.voxels == 0:
        raise InputError("there are no voxels to decompose a Brier score of")
    m, n, response = voxels.value, voxels.count, voxels.response
    curve = _core.isotonic(response / n, n)
    total = n.sum()
    base = response.sum() / total
    uncertainty = (voxels.squares.sum() - base * response.sum()) / total
    miscalibration = _miscalibration(m, n, response, curve)
    discrimination = (n * (curve - base) ** 2).sum() / total  # blocks have their mean response
    brier = miscalibration - discrimination + uncertainty
    return Corp(
        m, n, curve, float(brier), miscalibration, float(discrimination), float(uncertainty)
    )


def consistency_band(
    groups: Sequence[MappedVoxels], level: float = 0.95, draws: int = 1000, seed: int = 0
) -> tuple[_Floats, _Floats, _Floats]:
    """Return where the CORP curve of calibrated scores would lie, with as many groups as these.

    The response of each group at each score is replaced by what the score says, plus or minus the
    group's own deviation from the curve of all groups (a wild bootstrap: a random sign for each
    group, Wu 1986), and the curve is drawn again. Voxels of a group stay together, so a group that
    differs from the others moves the whole curve. Few groups make the band wider, as Student's t
    with Kish's effective number of groups in the block of the curve at that score, at least two.

    Parameters
    ----------
    groups
        The voxels of each independent group (patient), two at least.
    level
        Share of the curves between the limits at each score, in (0, 1).
    draws, seed
        Number of curves, and seed of their signs.

    Returns
    -------
    value, low, high : (K,) float64
        Calibrated scores that occur in any group, ascending, and the limits there.
    """
    from scipy.special import ndtri, stdtrit  # SciPy takes its time to be imported

    level = number_between(level, "level", 0, 1)
    draws, seed = whole_number(draws, "draws", 1), whole_number(seed, "seed", 0)
    if len(groups) < 2:
        raise InputError(f"a band over groups needs at least two, here {len(groups)}")
    m, n, own, block = _deviations(groups)
    # Deviations from their own mean are too small, and few groups have the tails of Student's t.
    blocks = np.unique(block)
    sizes = np.zeros_like(own)
    for row, group in zip(sizes, groups, strict=True):
        row[np.searchsorted(m, group.value)] = group.count
    sizes = np.add.reduceat(sizes, blocks, axis=1)
    of_blocks = sizes.sum(axis=0) ** 2 / (sizes**2).sum(axis=0)  # Kish 1965
    # Deviations of a group that is alone say nothing, and must not drown those of its neighbours.
    effective = np.maximum(of_blocks, _FEWEST)[np.searchsorted(blocks, block)]
    free = effective - 1
    tail = (1 + level) / 2
    own *= np.sqrt(effective / free) * stdtrit(free, tail) / ndtri(tail)
    rng = np.random.default_rng(seed)
    curves = np.empty((draws, len(m)))
    for curve in curves:
        response = n * m + rng.choice([-1.0, 1.0], len(groups)) @ own
        curve[:] = _core.isotonic(response / n, n)
    low, high = np.quantile(curves, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return m, np.clip(low, 0, 1), np.clip(high, 0, 1)


def miscalibration_if_calibrated(
    groups: Sequence[MappedVoxels], draws: int = 200, seed: int = 0
) -> float:
    """Return the mean MCB that CORP would find if the scores were calibrated: not 0 in few groups.

    The responses are those of `consistency_band`; few groups make them larger by n / (n - 1), with
    n Kish's effective number of groups by their voxels.

    Parameters
    ----------
    groups
        The voxels of each independent group (patient), two at least.
    draws, seed
        Number of values, and seed of the signs.
    """
    draws, seed = whole_number(draws, "draws", 1), whole_number(seed, "seed", 0)
    if len(groups) < 2:
        raise InputError(f"groups are compared, so two at least are needed, here {len(groups)}")
    m, n, own, _ = _deviations(groups)
    sizes = np.array([group.voxels for group in groups])
    effective = sizes.sum() ** 2 / (sizes**2).sum()
    own *= np.sqrt(effective / max(effective - 1, 1e-9))
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        response = n * m + rng.choice([-1.0, 1.0], len(groups)) @ own
        curve = _core.isotonic(response / n, n)
        found.append(_miscalibration(m, n, response, curve))
    return float(np.mean(found))


def _miscalibration(m: _Floats, n: _Floats, response: _Floats, curve: _Floats) -> float:
    # As differences of the terms: the scores themselves are a thousand times larger.
    return float(((m - curve) * (n * (m + curve) - 2 * response)).sum() / n.sum())


def _deviations(
    groups: Sequence[MappedVoxels],
) -> tuple[_Floats, _Floats, _Floats, NDArray[np.intp]]:
    """Return scores, voxels, how far each group (row) is from the curve, and where blocks begin.

    From the curve, not from the mean at each score: scores that one group alone has, as those of
    float32, would have no deviation. The last array has, for each score, the first of its block.
    """
    together = all_of(groups)
    m, n = together.value, together.count
    curve = _core.isotonic(together.response / n, n)
    own = np.zeros((len(groups), len(m)))
    for row, group in zip(own, groups, strict=True):
        at = np.searchsorted(m, group.value)
        row[at] = group.response - group.count * curve[at]
    return m, n, own, np.searchsorted(curve, curve)
