"""The arrays of a case, ready to be tallied."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from twintrack.arrays.threads import max_threads
from twintrack.cohort.case import Case
from twintrack.cohort.region import RegionRule, annotated_box, read_mask, require_marked
from twintrack.errors import InputError
from twintrack.volumes import (
    HEADER_PARTS,
    Volume,
    check_same_geometry,
    find_part,
    paste,
    read_label_map,
    read_labels,
    read_score,
)


@dataclass(frozen=True, eq=False)
class LoadedCase:
    """The arrays of one case, all of the shape (x, y, z) of its annotations.

    Attributes
    ----------
    case
        Where they come from.
    score
        Tumour probability with its geometry; floating point. 0 outside `part`.
    raters
        One annotation per rater, in the dtype of its file.
    region
        Boolean mask of the voxels that count; None for all of them.
    vessels
        uint8 label map, or None.
    part
        Where the file of the score is a crop of the annotations' grid, the box that it covers; else
        None.
    voxel_volumes
        mm³ of a voxel by each file that states its voxel size, in the order score, raters, vessels,
        region.
    """

    case: Case
    score: Volume
    raters: list[NDArray[Any]]
    region: NDArray[np.bool_] | None
    vessels: NDArray[np.uint8] | None
    part: tuple[slice, slice, slice] | None = None
    voxel_volumes: Mapping[str, float] = field(default_factory=dict)

    def voxel_volume(self) -> float:
        """Return the mm³ of a voxel.

        Raises
        ------
        ValueError
            No file states its voxel size, or two state different ones, whose headers were ignored.
        """
        if not self.voxel_volumes:
            raise InputError(
                "volumes in mm³ need a voxel size, which none of its files states; put nnU-Net's "
                "segmentation beside the .npz, name one file of the case as NIfTI or MetaImage, or "
                "measure in voxels (without --mm3)",
                case=self.case.name,
            )
        (first, known), *others = self.voxel_volumes.items()
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
) -> LoadedCase:
    """Read the files of a case and bring them together on the grid of its annotations.

    A score may be a crop of that grid, as nnU-Net's is when it was trained on crops (see
    `find_part`): then it is 0 outside, so that no voxel that a rater marks is lost. So may the mask
    of the region, if it is the same crop. All other files have to lie on one grid.

    Parameters
    ----------
    case
        Files to read.
    region_rule
        Which voxels count: "roi" (the mask of the case), "box" (`annotated_box`) or "all".
    ignore_header
        Compare the shapes only, for files whose voxels correspond though their headers differ. Then
        no score can be a crop, for only headers tell where it lies.
    tumour
        Classes to merge where the score is an ``.npz`` of class probabilities; see `read_volume`.

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
    if region_rule == "roi" and case.roi is None:
        raise InputError(
            "region rule 'roi' needs a mask; name its file in the manifest's column 'roi', or "
            "choose the rule 'box' or 'all'",
            case=case.name,
        )
    readers = [functools.partial(read_score, case.score, tumour)]
    readers += [functools.partial(read_labels, file) for file in case.raters]
    if case.vessels:
        readers.append(functools.partial(read_label_map, case.vessels))
    if case.roi and region_rule == "roi":
        readers.append(functools.partial(read_mask, case.roi))
    volumes = _read_all(readers)
    score, raters = volumes[0], volumes[1 : 1 + len(case.raters)]
    vessels = volumes[1 + len(raters)] if case.vessels else None
    roi = volumes[-1] if case.roi and region_rule == "roi" else None

    reference = next((volume for volume in volumes if volume.affine is not None), score)
    part = None if ignore_header or not raters else find_part(raters[0], score)
    if part is not None:
        reference, score = raters[0], paste(score, part, raters[0])
    if roi:
        roi = on_grid(roi, reference, part, ignore_header)
    for volume in (score, *raters, *([vessels] if vessels else [])):
        check_same_geometry(reference, volume, ignore=HEADER_PARTS if ignore_header else ())

    arrays = [volume.array for volume in raters]
    region: NDArray[np.bool_] | None = None
    if roi:
        region = roi.array
        require_marked(bool(region.any()), roi)
    elif region_rule == "box":
        try:
            box = annotated_box(arrays)
        except ValueError as error:
            raise InputError.of(error, case=case.name) from error
        # numpy.zeros takes no memory for the pages outside the box.
        order: Literal["F", "C"] = "F" if score.array.flags.f_contiguous else "C"
        region = np.zeros(score.array.shape, np.bool_, order)
        region[box] = True
    return LoadedCase(
        case,
        score,
        arrays,
        region,
        vessels.array if vessels else None,
        part,
        {str(v): v.voxel_volume for v in volumes if v.affine is not None},
    )


def on_grid(
    mask: Volume,
    grid: Volume,
    part: tuple[slice, slice, slice] | None = None,
    ignore_header: bool = False,
) -> Volume:
    """Return a mask on `grid`, where it lies already unless it covers `part`: then 0 outside.

    Raises
    ------
    ValueError
        It lies on another grid; see `check_same_geometry`.
    """
    if part is not None and find_part(grid, mask) == part:
        return paste(mask, part, grid)
    check_same_geometry(grid, mask, ignore=HEADER_PARTS if ignore_header else ())
    return mask


def _read_all(readers: Sequence[Callable[[], Volume]]) -> list[Volume]:
    """Call every reader, several at a time; of several errors the first in order is raised.

    Inflating takes the time, and gives up the lock of the interpreter.
    """
    threads = min(max_threads(), len(readers))
    if threads == 1:
        return [read() for read in readers]
    with ThreadPoolExecutor(threads) as pool:
        started = [pool.submit(read) for read in readers]
        try:
            return [volume.result() for volume in started]
        finally:
            pool.shutdown(cancel_futures=True)
