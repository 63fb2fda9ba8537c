"""Slices of a case for the qualitative figure: what raters, score and calibrated score say."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from twintrack.cohort import LoadedCase
from twintrack.errors import InputError
from twintrack.files import replacing
from twintrack.volumes import read_volume
from twintrack.volumes.grid import copied_to_box, place_together

_Image = NDArray[np.float32]

_IMAGES = ("mhr", "score", "calibrated", "background")


@dataclass(frozen=True, eq=False)
class Example:
    """One slice, cropped, as it is to be seen: first row on top.

    Attributes
    ----------
    case
        Name of the case.
    slice_name
        Where the slice lies in the file, such as "axial, z = 57" (0-based voxel index).
    mhr, score : (rows, columns) float32 in [0, 1]
    spacing
        Height and width of a pixel in mm.
    calibrated
        As `score`, or None.
    background
        Grey values in [0, 1], or None when there is no image.
    radiological
        Whether the patient's right is on the left and the front on top.
    """

    case: str
    slice_name: str
    mhr: _Image
    score: _Image
    spacing: tuple[float, float]
    calibrated: _Image | None = None
    background: _Image | None = None
    radiological: bool = False

    def __post_init__(self) -> None:
        for name in _IMAGES:
            image = getattr(self, name)
            if image is None:
                continue
            if image.ndim != 2 or image.shape != self.mhr.shape or image.size == 0:
                raise InputError(
                    f"{name} of {self.case!r}: shape {image.shape}; mhr has {self.mhr.shape}"
                )
            outside = ~((image >= 0) & (image <= 1))
            if outside.any():
                row, column = (int(i) for i in np.argwhere(outside)[0])
                raise InputError(
                    f"{name} of {self.case!r} is {image[row, column]} at row {row}, column "
                    f"{column}; need [0, 1]"
                )
        if len(self.spacing) != 2 or not all(0 < step < np.inf for step in self.spacing):
            raise InputError(f"spacing of {self.case!r} is {self.spacing}; need two lengths in mm")


def cut_example(
    case: str,
    score: NDArray[Any],
    raters: NDArray[Any] | Sequence[NDArray[Any]],
    calibrated: NDArray[Any] | None = None,
    image: NDArray[Any] | None = None,
    affine: NDArray[np.float64] | None = None,
    index: int | None = None,
    margin: float = 10.0,
    window: tuple[float, float] = (-160.0, 240.0),
) -> Example:
    """Cut the axial slice that shows the lesion best, zoomed to it.

    Parameters
    ----------
    case
        Name shown beside the row.
    score
        (x, y, z), in [0, 1].
    raters
        One 0/1 annotation per rater, each of the shape of `score`.
    calibrated, image
        Of the shape of `score`, or None.
    affine
        (4, 4), voxel index to mm, RAS+: the slice is the axial one and turned as radiologists look
        at it. Without, the last axis is taken as axial, voxels as 1 mm, and nothing is mirrored.
    index
        Slice along the axial axis; by default the one where the raters marked most, or, where they
        marked nothing, where the score is largest.
    margin
        mm kept around what the raters marked in the slice.
    window
        Values of `image` shown black and white; for CT in HU the default shows soft tissue.

    Raises
    ------
    ValueError
        Shapes that differ, an index outside the volume, an empty window, or values outside [0, 1].
    """
    masks = [np.asarray(mask) for mask in raters]
    volumes = {"calibrated": calibrated, "image": image} | {
        f"rater {i + 1}": mask for i, mask in enumerate(masks)
    }
    if score.ndim != 3 or not masks:
        raise InputError(
            f"score of shape {score.shape} and {len(masks)} raters; need (x, y, z)", case=case
        )
    for name, volume in volumes.items():
        if volume is not None and volume.shape != score.shape:
            raise InputError(f"{name} has shape {volume.shape}, score {score.shape}", case=case)
    if not window[0] < window[1]:
        raise InputError(
            f"window is {window}; need (black, white) with black below white", case=case
        )

    orientation = _orientation(affine)
    axis = int(np.flatnonzero(orientation[:, 0] == 2)[0])
    if index is None:
        index = _fullest_slice(masks, score, axis)
    if not 0 <= index < score.shape[axis]:
        raise InputError(
            f"slice {index} is outside 0…{score.shape[axis] - 1} of axis {axis}", case=case
        )

    kept = [i for i in range(3) if i != axis]
    turned = orientation[kept[0], 0] == 0  # the array's first axis runs along the picture's rows

    def upright(volume: NDArray[Any]) -> _Image:
        """Turn the slice so that rows run from front to back, columns from right to left."""
        plane = np.take(volume, index, axis=axis)
        for place, i in enumerate(kept):
            if affine is not None and orientation[i, 1] > 0:
                plane = np.flip(plane, place)
        return np.asarray(plane.T if turned else plane, np.float32)

    lengths = np.ones(3) if affine is None else np.linalg.norm(affine[:3, :3], axis=0)
    rows, columns = kept[::-1] if turned else kept
    spacing = (float(lengths[rows]), float(lengths[columns]))

    mhr = np.zeros_like(upright(score))
    for mask in masks:
        mhr += upright(mask)
    mhr /= len(masks)
    shown = upright(score)
    crop = _square_around(mhr > 0 if mhr.any() else shown >= 0.5, spacing, margin)
    black, white = window
    return Example(
        case,
        f"axial, {'xyz'[axis]} = {index}",
        mhr[crop],
        shown[crop],
        spacing,
        None if calibrated is None else upright(calibrated)[crop],
        None if image is None else np.clip((upright(image)[crop] - black) / (white - black), 0, 1),
        radiological=affine is not None,
    )


def case_example(
    name: str,
    loaded: LoadedCase,
    calibrated: NDArray[Any] | None = None,
    image: Path | None = None,
    ignore_header: bool = False,
) -> Example:
    """Cut the example of a case that is loaded.

    Parameters
    ----------
    name
        Of the case.
    loaded
        Score and raters.
    calibrated
        The score after calibration, of its shape, or None.
    image
        Volume on the grid of the score, shown behind it, or None.
    ignore_header
        As in `twintrack.cohort.load_case`.

    Raises
    ------
    FileNotFoundError, ValueError, OSError
        The image cannot be read, or is on another grid.
    """
    background = None
    if image is not None:
        volume = read_volume(image, ())
        _, found = place_together([loaded.score, volume], ignore_header)
        background = copied_to_box(volume.array, found, (0, 0, 0), loaded.score.array.shape)
    score = loaded.score
    return cut_example(name, score.array, loaded.masks, calibrated, background, score.affine)


def typical_case(rater_volumes: Mapping[str, float]) -> str | None:
    """Choose the case of median volume among those in which raters marked something.

    The choice looks at nothing that a method has a say in, so that all methods show one case, and
    no case is picked for its looks. None if there is no such case.
    """
    marked = sorted((volume, case) for case, volume in rater_volumes.items() if volume > 0)
    return marked[(len(marked) - 1) // 2][1] if marked else None


def _orientation(affine: NDArray[np.float64] | None) -> NDArray[np.int64]:
    """Per array axis: which of right, front, top it runs along (0, 1, 2), and its sign."""
    if affine is None:
        return np.array([[0, 1], [1, 1], [2, 1]])
    return np.asarray(nib.orientations.io_orientation(affine), np.int64)


def _fullest_slice(masks: Sequence[NDArray[Any]], score: NDArray[Any], axis: int) -> int:
    others = tuple(i for i in range(3) if i != axis)
    marked = sum(np.count_nonzero(mask, axis=others) for mask in masks)
    if np.any(marked):
        return int(np.argmax(marked))
    return int(np.argmax(score.sum(axis=others, dtype=np.float64)))


def _square_around(
    lesion: NDArray[Any], spacing: tuple[float, float], margin: float
) -> tuple[slice, slice]:
    """Crop to a square in mm around `lesion` with `margin`, as far as the image goes."""
    if not lesion.any():
        return slice(None), slice(None)
    ends = [np.flatnonzero(lesion.any(axis=1 - axis))[[0, -1]] for axis in (0, 1)]
    side = max((last + 1 - first) * step for (first, last), step in zip(ends, spacing, strict=True))
    side += 2 * margin
    crop = []
    for (first, last), step, size in zip(ends, spacing, lesion.shape, strict=True):
        wanted = min(size, round(side / step))
        start = int(np.clip(round((first + last + 1 - wanted) / 2), 0, size - wanted))
        crop.append(slice(start, start + wanted))
    return crop[0], crop[1]


def write_example(path: Path, example: Example) -> None:
    """Write an example as ``.npz``, which `read_examples` reads."""
    images = {name: getattr(example, name) for name in _IMAGES}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            case=np.array(example.case),
            slice_name=np.array(example.slice_name),
            spacing=np.array(example.spacing),
            radiological=np.array(example.radiological),
            **{name: image for name, image in images.items() if image is not None},
        )


def read_examples(folder: Path) -> list[Example]:
    """Read the examples (``.npz``) of a folder, by file name; none when there is no such folder.

    Raises
    ------
    ValueError
        A file that is not an example; the message names it.
    """
    return [_read_example(path) for path in sorted(folder.glob("*.npz"))]


def _read_example(path: Path) -> Example:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            height, width = (float(step) for step in stored["spacing"])
            return Example(
                str(stored["case"]),
                str(stored["slice_name"]),
                spacing=(height, width),
                radiological=bool(stored["radiological"]),
                **{
                    name: np.asarray(stored[name], np.float32) for name in _IMAGES if name in stored
                },
            )
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"not an example written by twintrack: {error}", file=path) from error
