"""Calibration error without its bias: what few patients differ by is not taken for an error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from twintrack.arrays.numbers import whole_number
from twintrack.errors import InputError
from twintrack.metrics.mapped_voxels import MappedVoxels


class DebiasedError(NamedTuple):
    """Squared calibration error over the voxels of all groups.

    Attributes
    ----------
    squared
        CE² without its bias; may be below 0 where there is nothing to see.
    plain
        CE² as it is: too high by what groups differ by at random.
    left_out
        Share of the voxels in bins that one group alone has, of which the bias is not known; they
        do not count in either.
    """

    squared: float
    plain: float
    left_out: float


def debiased_error(groups: Sequence[MappedVoxels], bins: int = 50) -> DebiasedError:
    r"""Return the squared calibration error, with and without its bias.

    With D_cb the sum of (m - MHR) over the n_cb voxels of group c in bin b, D_b and N_b their sums
    over the groups, C_b the number of groups with voxels there, and V voxels in all:

    .. math::
        CE^2 = \sum_b \frac{D_b^2}{N_b V} - \sum_b \frac{C_b}{C_b - 1}
               \sum_c \frac{(D_{cb} - n_{cb} D_b / N_b)^2}{N_b V}

    The second term is the variance of D_b between groups (of ratio estimates, Cochran 1977);
    debiasing by voxels, as Kumar, Liang and Ma (2019) do, does nothing here, as voxels of a patient
    are not independent.

    Parameters
    ----------
    groups
        The voxels of each independent group (patient).
    bins
        Number of equally wide bins of the calibrated score.

    Raises
    ------
    ValueError
        There are fewer than two groups, or no voxels.
    """
    bins = whole_number(bins, "bins", 1)
    count, off = np.zeros((2, len(groups), bins))
    for c, group in enumerate(groups):
        at = np.minimum((group.value * bins).astype(np.intp), bins - 1)
        count[c] = np.bincount(at, group.count, bins)
        off[c] = np.bincount(at, group.value * group.count - group.response, bins)
    return error_of_bins(count, off)


def error_of_bins(count: NDArray[np.float64], off: NDArray[np.float64]) -> DebiasedError:
    """Return `debiased_error` from its sums.

    Parameters
    ----------
    count, off : (groups, bins) float64
        n_cb and D_cb: voxels, and sums of (m - MHR).
    """
    if len(count) < 2:
        raise InputError(f"the bias is known from two groups on, here {len(count)}")
    voxels = count.sum()
    if voxels == 0:
        raise InputError("there are no voxels to measure a calibration error of")
    present = (count > 0).sum(axis=0)
    used = present > 1
    n_b, d_b, c_b = count.sum(axis=0)[used], off.sum(axis=0)[used], present[used]
    within = ((off[:, used] - count[:, used] * (d_b / n_b)) ** 2).sum(axis=0)
    plain = (d_b**2 / n_b).sum() / voxels
    bias = (c_b / (c_b - 1) * within / n_b).sum() / voxels
    return DebiasedError(float(plain - bias), float(plain), float(1 - n_b.sum() / voxels))
