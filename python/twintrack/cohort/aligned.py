"""The files of a case, opened and brought together on one grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from twintrack.cohort.case import Case
from twintrack.cohort.region import RegionRule, open_mask
from twintrack.errors import InputError
from twintrack.volumes import Volume
from twintrack.volumes.annotation import UNSEEN, labels_found, open_annotation
from twintrack.volumes.geometry import ghost
from twintrack.volumes.grid import (
    Box,
    Placement,
    common_box,
    grid_of_box,
    place_together,
    stated_affine,
)
from twintrack.volumes.slabs import VolumeSlabs, open_label_map, open_score


@dataclass(frozen=True)
class AlignedCase:
    """Volumes of one shape and place, whatever crop, flip and order of axes their files have.

    Attributes
    ----------
    case
        Where they come from.
    place
        Shape and geometry of the grid; its array has no values.
    score, raters, vessels, region
        On the grid, 0 where the file has no voxel; None where there is none.
    unseen
        Value of annotations where a rater did not look; None if all raters looked everywhere.
    part
        The box of the grid that the score covers; None if it covers all of it.
    beyond
        Annotations that have voxels outside of the grid: as in their files, and on the grid.
    notes
        What to tell of how the files were brought together.
    voxel_volumes
        mm³ of a voxel by each file that states its voxel size, in the order score, raters, vessels,
        region.
    """

    case: Case
    place: Volume
    score: VolumeSlabs
    raters: list[VolumeSlabs | None]
    vessels: VolumeSlabs | None
    region: VolumeSlabs | None
    part: Box | None
    beyond: list[tuple[VolumeSlabs, VolumeSlabs]]
    notes: list[str]
    unseen: int | None
    voxel_volumes: Mapping[str, float]
    _first: tuple[int, int, int]
    _placements: Mapping[str, Placement]

    def located(self, error: InputError, plane: int = 0) -> InputError:
        """Return an error about the arrays with the place that its voxel has in its file.

        `plane` is the first one of the slab that it is about.
        """
        placement = self._placements.get(error.argument or "")
        if placement is None or error.voxel is None:
            return error
        x, y, z = (a + b for a, b in zip(error.voxel, self._first, strict=True))
        error = error.replaced(voxel=placement.own_voxel((x, y, z + plane)))
        for k, path in self.case.annotations.items():
            if error.argument == f"raters[{k}]":
                return error.replaced(
                    advice=f"the file holds {labels_found(path)}: name the tumour's with --label, "
                    "and that of voxels that the rater did not look at with --ignore-label (in "
                    "Python label= and ignore_label=)"
                )
        return error

    def marked_beyond(self, planes: int) -> int:
        """Return how many voxels raters mark outside of the grid, over all of them; reads them."""

        def marked(volume: VolumeSlabs) -> int:
            return sum(marks(slab, self.unseen) for slab in volume.slabs(planes))

        return sum(marked(own) - marked(placed) for own, placed in self.beyond)


def marks(annotation: NDArray[Any], unseen: int | None) -> int:
    """Return how many voxels of an annotation are marked."""
    marked = int(np.count_nonzero(annotation))
    return marked if unseen is None else marked - int(np.count_nonzero(annotation == unseen))


def align_case(
    case: Case,
    extent: Literal["score", "all"],
    region_rule: RegionRule,
    ignore_header: bool = False,
    tumour: Sequence[int] = (1,),
    label: Sequence[str] = (),
    vessels: bool = False,
    ignore_label: int | None = None,
) -> AlignedCase:
    """Open the files of a case and bring them together on the grid of its score.

    Volumes lie on the same physical grid if their voxels lie within a twentieth of a voxel of each
    other, up to crop, flip and order of axes. Voxels are copied, never resampled. Outside of a
    cropped annotation nobody marked anything.

    Parameters
    ----------
    case
        Its files.
    extent
        "score": the box that the score covers, with its axes; "all": the box that score and
        annotations cover, with the axes of most files, for the vascular invasion depends on them.
    region_rule
        The mask of the case is opened for the rule "roi" alone.
    ignore_header
        Compare the shapes only, for files whose voxels correspond though their headers differ.
    tumour
        Classes to merge where the score is an ``.npz`` of class probabilities; see `read_volume`.
    label
        Labels of annotations that are the tumour; see `open_annotation`.
    vessels
        Whether to open the vessels, if there are any.
    ignore_label
        Value of annotations at voxels that the rater did not look at.

    Raises
    ------
    FileNotFoundError, ValueError, OSError
        A file is missing, corrupt or on another grid, as far as the headers tell.
    """
    if region_rule == "roi" and case.roi is None:
        raise InputError(
            "region rule 'roi' needs a mask; name its file in the manifest's column 'roi', or "
            "choose the rule 'box' or 'all'",
            case=case.name,
        )
    raters = {f"raters[{k}]": path for k, path in case.annotations.items()}
    opened = {"score": open_score(case.score, tumour)}
    opened |= {name: open_annotation(path, label, ignore_label) for name, path in raters.items()}
    if vessels and case.vessels is not None:
        opened["vessels"] = open_label_map(case.vessels)
    if region_rule == "roi" and case.roi is not None:
        opened["region"] = open_mask(case.roi)

    places = [volume.place for volume in opened.values()]
    placements = place_together(places, ignore_header, axes_of_most=extent == "all")
    found = dict(zip(opened, placements, strict=True))
    score = found["score"]
    first, shape = common_box([score, *(found[name] for name in raters if extent == "all")])
    # The affine of the score, as it is written; of another file where the score has none.
    whose = next((name for name in opened if opened[name].place.affine is not None), "score")
    affine = grid_of_box(opened[whose].place, found[whose], first)
    place = Volume(ghost(shape, places[0].array.dtype), affine, places[0].path, places[0].header)
    placed = {name: volume.placed(found[name], first, place) for name, volume in opened.items()}
    whole = (first, shape)
    beyond = [name for name in raters if common_box([found[name], score]) != common_box([score])]
    return AlignedCase(
        case,
        place,
        placed["score"],
        [placed.get(f"raters[{k}]") for k in range(len(case.raters))],
        placed.get("vessels"),
        placed.get("region"),
        None if common_box([score]) == whole else score.box_in(first),
        [(opened[name], placed[name]) for name in beyond if extent == "score"],
        []
        if ignore_header
        else _notes({opened[name].place: p for name, p in found.items()}, score),
        UNSEEN if label and ignore_label is not None else ignore_label,
        {str(place): place.voxel_volume for place in places if place.affine is not None},
        first,
        found,
    )


def _notes(found: Mapping[Volume, Placement], score: Placement) -> list[str]:
    def named(places: Sequence[Volume]) -> str:
        return ", ".join(str(v) if v.path is None else v.path.name for v in places)

    turned = [place for place, placement in found.items() if placement.turned]
    crops = [
        place
        for place, placement in found.items()
        if placement is not score and common_box([placement, score]) != common_box([placement])
    ]
    stated = [place for place in found if stated_affine(place) is not None]
    unstated = [place for place in found if place.affine is not None and place not in stated]
    return [
        *(
            [f"does not state its place, taken for that of its shape: {named(unstated)}"]
            if stated and unstated
            else []
        ),
        *([f"turned to the axes of the other files: {named(turned)}"] if turned else []),
        *([f"covers less than the score, 0 elsewhere: {named(crops)}"] if crops else []),
    ]


def nothing_marked(cases: Sequence[Case], label: Sequence[str]) -> str:
    """Say that no case has a mark, and which labels there are; reads an annotation for it."""
    told = f"no rater marked a voxel that counts, in any of {len(cases)} cases"
    files = [path for case in cases for path in case.raters if path is not None]
    if not label or not files:
        return told
    found = labels_found(files[0])
    return (
        f"{told}; --label is {','.join(label)}, {files[0]} holds {found}: name the tumour's label"
    )
