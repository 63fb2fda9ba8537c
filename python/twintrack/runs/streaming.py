"""Cases gone through in slabs rather than loaded.

The memory that a case takes does not depend on its size, and a slab that stays in the cache is used
sooner than an array that has to be fetched from memory again.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twintrack.cohort import Case, RegionRule, annotated_box
from twintrack.cohort.region import BOX_MARGIN, as_mask, require_marked
from twintrack.volumes import HEADER_PARTS, Volume, check_same_geometry
from twintrack.volumes.slabs import VolumeSlabs, open_slabs

__all__ = ["SLAB_VOXELS", "Slab", "StreamedCase", "moved", "open_case", "open_score", "planes_of"]

SLAB_VOXELS = 1 << 20  # of each file: work for all cores, and about the size of a cache
_VOXEL = re.compile(r"\[(\d+), (\d+), (\d+)\]")


@dataclass(frozen=True)
class Slab:
    """Consecutive planes of a case: arrays (x, y, planes)."""

    score: NDArray[Any]
    raters: list[NDArray[Any]]
    region: NDArray[np.bool_] | None


@dataclass(frozen=True)
class StreamedCase:
    """The arrays of a case, slab by slab; what `load_case` gives in one piece.

    Attributes
    ----------
    case
        Where they come from.
    place
        Shape and geometry of the score.
    region_rule
        Which voxels count.
    """

    case: Case
    place: Volume
    region_rule: RegionRule
    _score: VolumeSlabs
    _raters: list[VolumeSlabs]
    _roi: VolumeSlabs | None

    def for_each(self, work: Callable[[Slab], object]) -> None:
        """Call `work` on the slabs of the case, from its first plane to its last.

        Raises
        ------
        ValueError
            As `load_case`, for what is found on the way; and what `work` raises, with the voxel's
            place in the volume.
        """
        first = 0
        for slab in self.slabs():
            try:
                work(slab)
            except ValueError as error:
                raise ValueError(moved(str(error), first)) from error
            first += slab.score.shape[2]

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
                region = as_mask(raters.pop(), self._roi.place, first)
                marked = marked or bool(region.any())
            elif box is not None:
                region = np.zeros(score.shape, np.bool_, "F")
                x, y, z = box
                region[x, y, max(z.start - first, 0) : max(z.stop - first, 0)] = True
            yield Slab(score, raters, region)
        for part in parts:
            next(part, None)  # reads on to the checksums
        if self._roi is not None:
            require_marked(marked, self._roi.place)

    @property
    def _planes(self) -> int:
        return planes_of(self.place)

    def _box(self) -> tuple[slice, slice, slice]:
        """Return `annotated_box` of the raters, which are read for it."""
        found = []
        for volume in self._raters:
            first = 0
            for slab in volume.slabs(self._planes):
                with contextlib.suppress(ValueError):  # nothing is marked here
                    x, y, z = annotated_box([slab], margin=0)
                    found.append((x, y, slice(z.start + first, z.stop + first)))
                first += slab.shape[2]
        if not found:
            raise ValueError("no rater marks any voxel, so there is no annotated box")
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

    Raises
    ------
    FileNotFoundError, ValueError, OSError
        As `load_case`, as far as the headers tell.
    """
    score = open_score(case.score, tumour)
    raters = [open_slabs(path, ()) for path in case.raters]
    roi = open_slabs(case.roi, ()) if region_rule == "roi" and case.roi is not None else None
    places = [volume.place for volume in (score, *raters, *([roi] if roi else []))]
    reference = next((place for place in places if place.affine is not None), places[0])
    for place in places:
        check_same_geometry(reference, place, ignore=HEADER_PARTS if ignore_header else ())
    return StreamedCase(case, score.place, region_rule, score, raters, roi)


def open_score(path: Path, tumour: Sequence[int]) -> VolumeSlabs:
    """Open a score, as `read_score` reads it."""
    score = open_slabs(path, tumour)
    dtype = score.place.array.dtype
    if dtype.kind != "f":
        raise ValueError(
            f"{path}: holds {dtype} without a scale factor: a segmentation, not a score"
        )
    return score


def planes_of(place: Volume) -> int:
    """Return how many planes of a volume make a slab."""
    x, y, _ = place.array.shape
    return int(max(1, SLAB_VOXELS // (x * y)))


def moved(message: str, first: int) -> str:
    """Turn a voxel's place in a slab into its place in the volume."""
    return _VOXEL.sub(lambda at: f"[{at[1]}, {at[2]}, {int(at[3]) + first}]", message, count=1)
