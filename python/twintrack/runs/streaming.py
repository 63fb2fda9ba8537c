"""Cases gone through in slabs rather than loaded.

The memory that a case takes does not depend on its size, and a slab that stays in the cache is used
sooner than an array that has to be fetched from memory again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twintrack.cohort import Case, RegionRule, annotated_box
from twintrack.cohort.aligned import AlignedCase, align_case
from twintrack.cohort.region import BOX_MARGIN, require_marked
from twintrack.errors import InputError
from twintrack.volumes import Volume
from twintrack.volumes.geometry import with_first_planes
from twintrack.volumes.grid import Box

SLAB_VOXELS = 1 << 20  # of each file: work for all cores, and about the size of a cache


@dataclass(frozen=True)
class Slab:
    """Consecutive planes of a case: arrays (x, y, planes); None for a rater that it lacks."""

    score: NDArray[Any]
    raters: list[NDArray[Any] | None]
    region: NDArray[np.bool_] | None


@dataclass(frozen=True)
class StreamedCase:
    """The arrays of a case, slab by slab; what `load_case` gives in one piece.

    But on the grid of the score: where it is a crop only voxels count that the networks were asked
    about.

    Attributes
    ----------
    aligned
        The files on that grid.
    region_rule
        Which voxels count.
    """

    aligned: AlignedCase
    region_rule: RegionRule

    @property
    def case(self) -> Case:
        """Where the arrays come from."""
        return self.aligned.case

    @property
    def place(self) -> Volume:
        """Shape and geometry of the score."""
        return self.aligned.place

    @property
    def notes(self) -> list[str]:
        """What to tell of the files though they can be used, once all slabs have been read."""
        return [*self.aligned.score.notes, *self.aligned.notes]

    def for_each(self, work: Callable[[Slab], object]) -> None:
        """Call `work` on the slabs of the case, from its first plane to its last.

        Raises
        ------
        ValueError
            As `load_case`, for what is found on the way; and what `work` raises, with the voxel's
            place in its file.
        """
        first = 0
        for slab in self.slabs():
            try:
                work(slab)
            except InputError as error:
                raise self.aligned.located(error, first) from error
            first += slab.score.shape[2]

    def marked_outside(self) -> int:
        """Return how many voxels raters mark outside of the score, over all of them; reads them."""
        return self.aligned.marked_beyond(planes_of(self.place))

    def slabs(self) -> Iterator[Slab]:
        """Yield the slabs of the case, from its first plane to its last; raises as `for_each`."""
        planes, mask = planes_of(self.place), self.aligned.region
        box = self._box(planes) if self.region_rule == "box" else None
        present = [rater for rater in self.aligned.raters if rater is not None]
        volumes = [self.aligned.score, *present, *([] if mask is None else [mask])]
        parts = [volume.slabs(planes) for volume in volumes]
        marked = False
        for first in range(0, self.place.array.shape[2], planes):
            score, *raters = (next(part) for part in parts)
            region = None
            if mask is not None:
                region = raters.pop()
                marked = marked or bool(region.any())
            elif box is not None:
                region = np.zeros(score.shape, np.bool_, "F")
                _inside(region, first, box)[...] = True
            own = iter(raters)
            everyone = [None if rater is None else next(own) for rater in self.aligned.raters]
            yield Slab(score, everyone, region)
        for part in parts:
            next(part, None)  # reads on to the checksums
        if mask is not None:
            require_marked(marked, mask.place)

    def _box(self, planes: int) -> Box:
        """Return `annotated_box` of the raters, which are read for it."""
        found = []
        for volume in filter(None, self.aligned.raters):
            for first, slab in with_first_planes(volume.slabs(planes)):
                with contextlib.suppress(ValueError):  # nothing is marked here
                    x, y, z = annotated_box([slab], 0, unseen=self.aligned.unseen)
                    found.append((x, y, slice(z.start + first, z.stop + first)))
        if not found:
            where = f" where {self.place} lies" if self.aligned.beyond else ""
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
    case: Case,
    region_rule: RegionRule,
    ignore_header: bool,
    tumour: Sequence[int],
    label: Sequence[str] = (),
    ignore_label: int | None = None,
) -> StreamedCase:
    """Open the files of a case on the grid of its score; vessels are left out.

    Raises
    ------
    FileNotFoundError, ValueError, OSError
        As `align_case`.
    """
    aligned = align_case(
        case, "score", region_rule, ignore_header, tumour, label, ignore_label=ignore_label
    )
    return StreamedCase(aligned, region_rule)


def _inside(slab: NDArray[Any], first: int, box: Box) -> NDArray[Any]:
    """Return what of a slab that starts at a plane lies in a box of the volume."""
    x, y, z = box
    return slab[x, y, max(z.start - first, 0) : max(z.stop - first, 0)]


def planes_of(place: Volume) -> int:
    """Return how many planes of a volume make a slab."""
    x, y, _ = place.array.shape
    return int(max(1, SLAB_VOXELS // (x * y)))
