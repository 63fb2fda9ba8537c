"""Cases gone through in slabs rather than loaded.

The memory that a case takes does not depend on its size, and a slab that stays in the cache is used
sooner than an array that has to be fetched from memory again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twintrack.cohort import Case, RegionRule, annotated_box
from twintrack.cohort.region import BOX_MARGIN, open_mask, require_marked
from twintrack.errors import InputError
from twintrack.volumes import HEADER_PARTS, Volume, check_same_geometry, find_part
from twintrack.volumes.geometry import with_first_planes
from twintrack.volumes.slabs import VolumeSlabs, open_slabs

SLAB_VOXELS = 1 << 20  # of each file: work for all cores, and about the size of a cache

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Slab:
    """Consecutive planes of a case: arrays (x, y, planes)."""

    score: NDArray[Any]
    raters: list[NDArray[Any]]
    region: NDArray[np.bool_] | None


@dataclass(frozen=True)
class StreamedCase:
    """The arrays of a case, slab by slab; what `load_case` gives in one piece.

    But for a score that is a crop of the annotations' grid: there the annotations are cropped to
    it, so that only voxels count that the networks were asked about.

    Attributes
    ----------
    case
        Where they come from.
    place
        Shape and geometry of the score.
    region_rule
        Which voxels count.
    part
        The box of the annotations' grid that the score covers; None if it covers all of it.
    """

    case: Case
    place: Volume
    region_rule: RegionRule
    part: Box | None
    _score: VolumeSlabs
    _whole_raters: list[VolumeSlabs]
    _raters: list[VolumeSlabs]
    _roi: VolumeSlabs | None

    @property
    def notes(self) -> list[str]:
        """What to tell of the score though it can be used, once all slabs have been read."""
        return list(self._score.notes)

    def for_each(self, work: Callable[[Slab], object]) -> None:
        """Call `work` on the slabs of the case, from its first plane to its last.

        Raises
        ------
        ValueError
            As `load_case`, for what is found on the way; and what `work` raises, with the voxel's
            place in the volume.
        """
        first = 0
        x, y, z = _start(self.part)
        for slab in self.slabs():
            try:
                work(slab)
            except InputError as error:
                of_score = error.argument == "score"
                raise error.moved((0, 0, first) if of_score else (x, y, z + first)) from error
            first += slab.score.shape[2]

    def marked_outside(self) -> int:
        """Return how many voxels outside of `part` a rater marks, over all raters; reads them."""
        if self.part is None:
            return 0
        marked = 0
        for volume in self._whole_raters:
            for first, slab in with_first_planes(volume.slabs(self._planes)):
                inside = _inside(slab, first, self.part)
                marked += int(np.count_nonzero(slab)) - int(np.count_nonzero(inside))
        return marked

    def slabs(self) -> Iterator[Slab]:
        """Yield the slabs of the case, from its first plane to its last; raises as `for_each`."""
        planes = self._planes
        box = self._box() if self.region_rule == "box" else None
        volumes = [self._score, *self._raters, *([self._roi] if self._roi else [])]
        parts = [volume.slabs(planes) for volume in volumes]
        marked = False
        for first in range(0, self.place.array.shape[2], planes):
            score, *raters = (next(part) for part in parts)
            region = None
            if self._roi is not None:
                region = raters.pop()
                marked = marked or bool(region.any())
            elif box is not None:
                region = np.zeros(score.shape, np.bool_, "F")
                _inside(region, first, box)[...] = True
            yield Slab(score, raters, region)
        for part in parts:
            next(part, None)  # reads on to the checksums
        if self._roi is not None:
            require_marked(marked, self._roi.place)

    @property
    def _planes(self) -> int:
        # Of a crop the annotations have the larger planes, which are read whole.
        return planes_of(self.place if self.part is None else self._whole_raters[0].place)

    def _box(self) -> Box:
        """Return `annotated_box` of the raters, which are read for it."""
        found = []
        for volume in self._raters:
            for first, slab in with_first_planes(volume.slabs(self._planes)):
                with contextlib.suppress(ValueError):  # nothing is marked here
                    x, y, z = annotated_box([slab], margin=0)
                    found.append((x, y, slice(z.start + first, z.stop + first)))
        if not found:
            where = "" if self.part is None else f" where {self.place} lies"
            raise InputError(f"no rater marks any voxel{where}, so there is no annotated box")
        x, y, z = (
            slice(
                max(min(part[axis].start for part in found) - BOX_MARGIN, 0),
                min(max(part[axis].stop for part in found) + BOX_MARGIN, length),
            )
            for axis, length in enumerate(self.place.array.shape)
        )
        return x, y, z


def open_case(
    case: Case, region_rule: RegionRule, ignore_header: bool, tumour: Sequence[int]
) -> StreamedCase:
    """Open the files of a case and check that they lie on one grid; vessels are left out.

    Annotations and the mask of the region are cropped to a score that is a crop of their grid.

    Raises
    ------
    FileNotFoundError, ValueError, OSError
        As `load_case`, as far as the headers tell.
    """
    score = open_score(case.score, tumour)
    raters = [open_slabs(path, ()) for path in case.raters]
    roi = open_mask(case.roi) if region_rule == "roi" and case.roi is not None else None
    part = None if ignore_header or not raters else find_part(raters[0].place, score.place)
    whole = raters
    if part is not None:
        for volume in raters:
            check_same_geometry(raters[0].place, volume.place)
        raters = [volume.cropped(part, score.place) for volume in raters]
        if roi is not None and find_part(roi.place, score.place) == part:
            roi = roi.cropped(part, score.place)
    places = [volume.place for volume in (score, *raters, *([roi] if roi else []))]
    reference = next((place for place in places if place.affine is not None), places[0])
    for place in places:
        check_same_geometry(reference, place, ignore=HEADER_PARTS if ignore_header else ())
    return StreamedCase(case, score.place, region_rule, part, score, whole, raters, roi)


def _inside(slab: NDArray[Any], first: int, box: Box) -> NDArray[Any]:
    """Return what of a slab that starts at a plane lies in a box of the volume."""
    x, y, z = box
    return slab[x, y, max(z.start - first, 0) : max(z.stop - first, 0)]


def _start(box: Box | None) -> tuple[int, int, int]:
    """Return the first voxel of a box."""
    if box is None:
        return (0, 0, 0)
    x, y, z = box
    return x.start, y.start, z.start


def open_score(path: Path, tumour: Sequence[int]) -> VolumeSlabs:
    """Open a score, as `read_score` reads it."""
    score = open_slabs(path, tumour)
    dtype = score.place.array.dtype
    if dtype.kind != "f":
        raise InputError(
            f"holds {dtype} without a scale factor: a segmentation, not a score", file=path
        )
    return score


def planes_of(place: Volume) -> int:
    """Return how many planes of a volume make a slab."""
    x, y, _ = place.array.shape
    return int(max(1, SLAB_VOXELS // (x * y)))
