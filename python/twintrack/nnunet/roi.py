"""The region of interest: where the coarse network found the organ, and a margin around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from twintrack.errors import InputError

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class RoiRule:
    """How the region follows from the coarse segmentation.

    Parameters
    ----------
    margins : (3,) float
        Margin in mm around the organ's box: left and right, front and back, head and feet. By
        default that of PANORAMA's baseline.
    components : {"all", "largest"}
        Which connected parts count as the organ, of those that are large enough. The largest alone
        keeps the region small when the coarse network finds organs where there are none, and loses
        what lies beyond a gap wider than the margin.
    minimum_volume : float
        In ml: smaller parts are no organ. A pancreas has 40 to 150 ml.
    dilation : float, optional
        In mm: within the box only voxels this near to the organ belong to the region; by default
        all do. Elsewhere the score is 0.
    missing : {"whole", "error"}
        What to do when no organ is found: take the whole volume and say so, or fail.

    Raises
    ------
    ValueError
        For a value out of its range.
    """

    margins: tuple[float, float, float] = (100.0, 50.0, 15.0)
    components: Literal["all", "largest"] = "all"
    minimum_volume: float = 1.0
    dilation: float | None = None
    missing: Literal["whole", "error"] = "whole"

    def __post_init__(self) -> None:
        if len(self.margins) != 3 or not all(np.isfinite(m) and m >= 0 for m in self.margins):
            raise InputError(f"margins is {self.margins}; it needs three lengths in mm, 0 or more")
        for name, choices in (("components", ("all", "largest")), ("missing", ("whole", "error"))):
            value = getattr(self, name)
            if value not in choices:
                raise InputError(f"it is one of {', '.join(choices)}", argument=name, value=value)
        if not (np.isfinite(self.minimum_volume) and self.minimum_volume >= 0):
            raise InputError(f"minimum_volume is {self.minimum_volume}; it is in ml, 0 or more")
        if self.dilation is not None and not (np.isfinite(self.dilation) and self.dilation >= 0):
            raise InputError(f"dilation is {self.dilation}; it is in mm, 0 or more")


@dataclass(frozen=True, eq=False)
class Roi:
    """Which voxels the ensemble is asked about.

    Attributes
    ----------
    box
        Slices along the axes of the array that the region belongs to.
    inside
        Boolean array of the box's shape: which of its voxels count. None for all.
    found
        Whether the coarse network found the organ; False without a coarse network too.
    """

    box: Box
    inside: NDArray[np.bool_] | None = None
    found: bool = True

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels of the box along each axis."""
        a, b, c = (part.stop - part.start for part in self.box)
        return a, b, c


def narrowed(roi: Roi, box: Sequence[tuple[int, int]]) -> Roi:
    """Return the part of a region that is in `box`: bounds counted from the region's own box."""
    inner = tuple(slice(start, stop) for start, stop in box)
    a, b, c = (
        slice(outer.start + part.start, outer.start + part.stop)
        for outer, part in zip(roi.box, inner, strict=True)
    )
    return Roi((a, b, c), None if roi.inside is None else roi.inside[inner], roi.found)


def near_organ(roi: Roi, organ: NDArray[np.bool_], reach: int) -> Roi:
    """Return the part of a region that is near an organ.

    Parameters
    ----------
    roi
        The region.
    organ : bool
        Of its box: which voxels are the organ's.
    reach
        In voxels along each axis: the organ grows by a cube of ``2 reach + 1`` voxels a side.
    """
    # Of bytes, and one axis after another: a dilation by the cube itself visits all of its voxels.
    near = ndimage.maximum_filter(organ.view(np.uint8), size=2 * reach + 1).view(np.bool_)
    return Roi(roi.box, near if roi.inside is None else near & roi.inside, roi.found)


def whole_volume(shape: Sequence[int]) -> Roi:
    """Return the region that is all of an image."""
    a, b, c = (slice(0, int(length)) for length in shape)
    return Roi((a, b, c), found=False)


def find_roi(
    organ: NDArray[np.bool_],
    starts: Sequence[float],
    steps: Sequence[float],
    shape: Sequence[int],
    spacing: Sequence[float],
    margins: Sequence[float],
    rule: RoiRule,
) -> Roi | None:
    """Return the region around the organ, or None if there is none.

    Parameters
    ----------
    organ : (3-D) bool
        Where the coarse network sees the organ, on its own grid, axes in the image's order.
    starts : (3,) float
        Where that grid begins (the outer face of its first voxel) in voxels of the image from the
        outer face of its first voxel.
    steps : (3,) float
        Extent of a coarse voxel in voxels of the image.
    shape, spacing : (3,)
        Of the image; mm.
    margins : (3,) float
        `rule`'s, put in the order of the array's axes; mm.
    """
    voxel_size = [step * size for step, size in zip(steps, spacing, strict=True)]
    organ = _plausible(organ, float(np.prod(voxel_size)) / 1000, rule)
    if not organ.any():
        return None
    box = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        hits = np.flatnonzero(organ.any(axis=others))
        margin = margins[axis] / spacing[axis]
        low = starts[axis] + hits[0] * steps[axis] - margin
        high = starts[axis] + (hits[-1] + 1) * steps[axis] + margin
        # A voxel belongs to the box if any of it does; rounding noise is no part of a voxel.
        first = min(max(int(np.floor(low + 1e-6)), 0), shape[axis] - 1)
        last = max(min(int(np.ceil(high - 1e-6)), shape[axis]), first + 1)
        box.append(slice(first, last))
    a, b, c = box
    inside = None
    if rule.dilation is not None:
        inside = _dilated(organ, starts, steps, voxel_size, (a, b, c), rule.dilation)
    return Roi((a, b, c), inside)


def _plausible(organ: NDArray[np.bool_], millilitres: float, rule: RoiRule) -> NDArray[np.bool_]:
    labels, count = ndimage.label(organ, np.ones((3, 3, 3)))
    if not count:
        return organ
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    keep = (sizes * millilitres >= rule.minimum_volume) & (sizes > 0)
    if rule.components == "largest":
        keep &= np.arange(count + 1) == np.argmax(sizes)
    kept: NDArray[np.bool_] = keep[labels]
    return kept


def _dilated(
    organ: NDArray[np.bool_],
    starts: Sequence[float],
    steps: Sequence[float],
    voxel_size: Sequence[float],
    box: Box,
    dilation: float,
) -> NDArray[np.bool_]:
    """Grow the organ on its own grid and look it up at each voxel of the box.

    The grid is extended as far as the box reaches, so that the organ can grow beyond it.
    """
    picks, pads = [], []
    for axis, part in enumerate(box):
        centres = np.arange(part.start, part.stop) + 0.5
        index = np.floor((centres - starts[axis]) / steps[axis]).astype(np.intp)
        before = max(0, -int(index[0]))
        after = max(0, int(index[-1]) - organ.shape[axis] + 1)
        picks.append(index + before)
        pads.append((before, after))
    near = ndimage.distance_transform_edt(~np.pad(organ, pads), sampling=voxel_size) <= dilation
    grown: NDArray[np.bool_] = near[np.ix_(*picks)]
    return grown
