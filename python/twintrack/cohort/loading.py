"""The arrays of a case, ready to be tallied."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from twintrack.arrays.threads import max_threads
from twintrack.cohort.aligned import AlignedCase, align_case
from twintrack.cohort.case import Case
from twintrack.cohort.region import RegionRule, annotated_box, open_mask, require_marked
from twintrack.errors import InputError
from twintrack.volumes import Volume
from twintrack.volumes.grid import place_together
from twintrack.volumes.slabs import VolumeSlabs


@dataclass(frozen=True, eq=False)
class LoadedCase:
    """The arrays of one case, all of the shape (x, y, z) of the grid that its files share.

    Attributes
    ----------
    case
        Where they come from.
    score
        Tumour probability with its geometry; floating point. 0 outside `part`.
    raters
        One annotation per rater, in the dtype of its file; None for a rater that the case does not
        have. `aligned.unseen` is the value where a rater did not look.
    region
        Boolean mask of the voxels that count; None for all of them.
    vessels
        uint8 label map, or None.
    aligned
        The files, and how they were brought together.
    """

    case: Case
    score: Volume
    raters: list[NDArray[Any] | None]
    region: NDArray[np.bool_] | None
    vessels: NDArray[np.uint8] | None
    aligned: AlignedCase

    @property
    def part(self) -> tuple[slice, slice, slice] | None:
        """The box that the file of the score covers; None if it covers all of the grid."""
        return self.aligned.part

    @property
    def masks(self) -> list[NDArray[Any]]:
        """What each rater that the case has marked: not 0 there, 0 where he did not look."""
        unseen = self.aligned.unseen
        present = [rater for rater in self.raters if rater is not None]
        return present if unseen is None else [r * (r != unseen) for r in present]

    def voxel_volume(self) -> float:
        """Return the mm³ of a voxel.

        Raises
        ------
        ValueError
            No file states its voxel size, or two state different ones, whose headers were ignored.
        """
        stated = self.aligned.voxel_volumes
        if not stated:
            raise InputError(
                "volumes in mm³ need a voxel size, which none of its files states; put nnU-Net's "
                "segmentation beside the .npz, name one file of the case as NIfTI or MetaImage, or "
                "measure in voxels (without --mm3)",
                case=self.case.name,
            )
        (first, known), *others = stated.items()
        for file, found in others:
            if not math.isclose(found, known, rel_tol=0.01):
                raise InputError(
                    f"{first} has voxels of {known:.6g} mm³ but {file} of {found:.6g} mm³; correct "
                    "the header that is wrong, or measure in voxels (without --mm3)",
                    case=self.case.name,
                )
        return known


def load_case(
    case: Case,
    region_rule: RegionRule,
    ignore_header: bool = False,
    tumour: Sequence[int] = (1,),
    label: Sequence[str] = (),
    ignore_label: int | None = None,
) -> LoadedCase:
    """Read the files of a case and bring them together on one grid; see `align_case`.

    A score that is a crop, as nnU-Net's is when it was trained on crops, is 0 outside, so that no
    voxel that a rater marks is lost.

    Parameters
    ----------
    case, ignore_header, tumour, label, ignore_label
        As in `align_case`.
    region_rule
        Which voxels count: "roi" (the mask of the case), "box" (`annotated_box`) or "all".

    Raises
    ------
    FileNotFoundError, ValueError, OSError
        A file is missing, corrupt or on another grid, the rule is "roi" and there is no mask (or
        it is empty, or holds more than 0 and one other value), or the rule is "box" and no rater
        marks any voxel. The message names the file or the case.
    """
    if region_rule not in get_args(RegionRule):
        raise InputError(
            f"choose one of {get_args(RegionRule)}", argument="region_rule", value=region_rule
        )
    opened = align_case(case, "all", region_rule, ignore_header, tumour, label, True, ignore_label)
    optional = [volume for volume in (opened.vessels, opened.region) if volume is not None]
    present = {k: rater for k, rater in enumerate(opened.raters) if rater is not None}
    loaded = _read_all([opened.score, *present.values(), *optional])
    score, arrays = loaded[0], [volume.array for volume in loaded[1 : 1 + len(present)]]
    region: NDArray[np.bool_] | None = None
    if opened.region is not None:
        region = loaded[-1].array
        require_marked(bool(region.any()), opened.region.place)
    elif region_rule == "box":
        try:
            box = annotated_box(arrays, unseen=opened.unseen)
        except ValueError as error:
            raise InputError.of(error, case=case.name) from error
        # numpy.zeros takes no memory for the pages outside the box.
        order: Literal["F", "C"] = "F" if score.array.flags.f_contiguous else "C"
        region = np.zeros(score.array.shape, np.bool_, order)
        region[box] = True
    vessels = None if opened.vessels is None else loaded[1 + len(arrays)].array
    by_rater = dict(zip(present, arrays, strict=True))
    raters = [by_rater.get(k) for k in range(len(opened.raters))]
    return LoadedCase(case, score, raters, region, vessels, opened)


def mask_on_grid(path: Path, grid: Volume, ignore_header: bool = False) -> NDArray[np.bool_]:
    """Read the mask of a region on the grid of a volume, False where the mask has no voxel.

    Raises
    ------
    FileNotFoundError, ValueError, OSError
        As `align_case`.
    """
    mask = open_mask(path)
    _, found = place_together([grid, mask.place], ignore_header)
    array: NDArray[np.bool_] = mask.placed(found, (0, 0, 0), grid).whole().array
    return array


def _read_all(opened: Sequence[VolumeSlabs]) -> list[Volume]:
    """Read every volume, several at a time; of several errors the first in order is raised.

    Inflating takes the time, and gives up the lock of the interpreter.
    """
    threads = min(max_threads(), len(opened))
    if threads == 1:
        return [volume.whole() for volume in opened]
    with ThreadPoolExecutor(threads) as pool:
        started = [pool.submit(volume.whole) for volume in opened]
        try:
            return [volume.result() for volume in started]
        finally:
            pool.shutdown(cancel_futures=True)
