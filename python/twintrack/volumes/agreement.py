"""Whether a score agrees with the segmentation that nnU-Net made of the same probabilities.

nnU-Net gives a voxel the class of the highest probability, and the label of the last region that is
above 1/2. So a label says what the probability of the tumour can be at least, and a high
probability which labels can be there. Where a pair of files contradicts that at a voxel, they are
not of one prediction as it was written: the segmentation was post-processed or is of another
prediction; or the voxels are not the same, as the axes of one were taken in a wrong order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twintrack.volumes.axis_order import Orientation, all_orders, sources
from twintrack.volumes.nnunet_files import Channels

# Probabilities may have been stored in 16 bits, or summed up in another order.
_ROUNDING = 2.0**-9

# Other orders are tried where the score contradicts so many voxels of the tumour, and a tenth of
# them: fewer are what filling holes or smoothing a segmentation does. One is better that
# contradicts a quarter of that at most: of a tumour that looks alike from two sides, the order that
# confuses them contradicts about as much.
_FEWEST = 8  # voxels
_POOR = 0.1
_BETTER = 0.25
_SAMPLE = 4096  # voxels


@dataclass(frozen=True)
class Expectation:
    """What holds in every voxel of a score and a segmentation of the same probabilities.

    Attributes
    ----------
    tumour, at_least
        With one of these labels, the score is not below `at_least`.
    possible, above
        With a score above `above`, the label is one of `possible`.
    """

    tumour: tuple[int, ...]
    at_least: float
    possible: tuple[int, ...]
    above: float


def expectation(channels: Channels | None, count: int, merged: Sequence[int]) -> Expectation | None:
    """Return what to expect of the score that `merged` channels out of `count` are merged to.

    None where nothing is known: regions, and nobody tells their labels. Channels are taken for
    classes where nothing tells what they are.
    """
    if channels is None or not channels.regions:
        # The highest of `count` probabilities is at least their mean. A class that is not merged
        # has at most what the merged ones leave over, and one of those at least their mean.
        share = len(merged) / (len(merged) + 1)
        labels = tuple(merged)
        return Expectation(labels, (1 - _ROUNDING) / count, labels, share * (1 + _ROUNDING))
    order = channels.order
    if len(order) != count:
        return None
    certain = tuple(
        label
        for label in dict.fromkeys(order)
        if all(channel in merged for channel in range(count) if order[channel] == label)
    )
    return Expectation(certain, 0.5, order[min(merged) :], 0.5)


class Agreement:
    """Counts the voxels where a score contradicts a segmentation.

    Attributes
    ----------
    marked
        Voxels that are labelled as the tumour.
    missing
        Those of them whose score is too low for it.
    surplus
        Voxels whose score is too high for their label.
    """

    def __init__(self, expected: Expectation) -> None:
        self.expected = expected
        self.marked: int = 0
        self.missing: int = 0
        self.surplus: int = 0

    def add(self, score: NDArray[Any], labels: NDArray[Any]) -> None:
        """Count in two arrays of one shape."""
        expected = self.expected
        tumour = _is_one_of(labels, expected.tumour)
        marked = int(np.count_nonzero(tumour))
        with np.errstate(invalid="ignore"):  # NaN is found where the score is used
            if marked:
                tumour &= score < expected.at_least
                self.missing += int(np.count_nonzero(tumour))
            high = score > expected.above
        if high.any():
            self.surplus += int(np.count_nonzero(high & ~_is_one_of(labels, expected.possible)))
        self.marked += marked

    @property
    def poor(self) -> bool:
        """Whether the axes may have been taken in a wrong order."""
        return self.missing >= max(_FEWEST, _POOR * self.marked)


def find_better_order(
    agreement: Agreement,
    shape: tuple[int, ...],
    scores: Iterable[NDArray[Any]],
    labels: Iterable[NDArray[Any]],
    preferred: Sequence[Orientation] = (),
) -> tuple[Orientation, float, float] | None:
    """Return in which other order of axes a score fits a segmentation clearly better, if any.

    Parameters
    ----------
    agreement
        Of all slabs, as they were taken.
    shape
        Of the volume.
    scores, labels
        Slabs (x, y, planes) of both, from the first plane to the last; gone through once each.
    preferred
        Of several orders that fit equally well, as a symmetric tumour has them, one of these.

    Returns
    -------
    order, missing, missing_before
        The turn to make, and the shares of the tumour's voxels, a sample of them, whose score is
        too low after and before it.
    """
    expected = agreement.expected
    voxels = _sample(labels, expected.tumour, agreement.marked)
    orders = all_orders(shape)
    places = np.stack([sources(voxels, order, shape) for order in orders])
    too_low = _look_up(scores, places.reshape(-1, 3)).reshape(places.shape[:2])
    missing = np.mean(too_low < expected.at_least, axis=1)
    likely = [any(np.array_equal(order, known) for known in preferred) for order in orders]
    best = min(range(1, len(orders)), key=lambda k: (missing[k], not likely[k]))
    if missing[best] > _BETTER * missing[0]:
        return None
    return orders[best], float(missing[best]), float(missing[0])


def _is_one_of(labels: NDArray[Any], values: Sequence[int]) -> NDArray[np.bool_]:
    found = np.zeros_like(labels, dtype=np.bool_)
    for value in values:
        found |= labels == value
    return found


def _sample(labels: Iterable[NDArray[Any]], values: Sequence[int], count: int) -> NDArray[np.intp]:
    """Return every so many-th voxel (n, 3) of the `count` with one of the labels."""
    step = -(-count // _SAMPLE)
    parts: list[NDArray[np.intp]] = []
    seen, first = 0, 0
    for slab in labels:
        found = np.argwhere(_is_one_of(slab, values).T)[:, ::-1]  # plane by plane
        parts.append(found[-seen % step :: step] + np.array([0, 0, first]))
        seen += len(found)
        first += slab.shape[2]
    return np.concatenate(parts)


def _look_up(scores: Iterable[NDArray[Any]], voxels: NDArray[np.intp]) -> NDArray[Any]:
    """Return the scores of voxels (n, 3)."""
    values = np.zeros(len(voxels))
    first = 0
    for slab in scores:
        here = (first <= voxels[:, 2]) & (voxels[:, 2] < first + slab.shape[2])
        x, y, z = voxels[here].T
        values[here] = slab[x, y, z - first]
        first += slab.shape[2]
    return values
