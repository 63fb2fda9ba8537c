"""Where nnU-Net's class probabilities lie in the image, and whether their segmentation agrees."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twintrack.errors import InputError
from twintrack.volumes.agreement import Agreement, Expectation, expectation, find_better_order
from twintrack.volumes.axis_order import AS_IT_IS, Orientation, axis_codes, from_ras, joined, turned
from twintrack.volumes.metaimage import read_metaimage_header
from twintrack.volumes.nifti import read_nifti_header
from twintrack.volumes.nnunet_files import Reader, describe_channels, reader_of, segmentation_beside

# Takes how many planes each slab has, and yields arrays (x, y, planes).
Slabs = Callable[[Sequence[int]], Iterator[NDArray[Any]]]


@dataclass(frozen=True)
class Placement:
    """Where class probabilities lie in the image.

    Attributes
    ----------
    shape
        Of the volume, (x, y, z) of its file.
    affine, header, segmentation
        Of the segmentation beside it, and its file; None without.
    reader
        Of nnU-Net.
    back
        What turns stored (x, y, z) to the axes of the file.
    """

    shape: tuple[int, ...]
    affine: NDArray[np.float64] | None
    header: Any
    segmentation: Path | None
    reader: Reader
    back: Orientation

    def turned(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return stored (x, y, z) as (x, y, z) of the file, with x fastest in memory."""
        return turned(array, self.back)

    @property
    def keeps_planes(self) -> bool:
        """Whether the stored planes are those of the file, in its order, though turned in them."""
        return bool(np.array_equal(self.back[2], AS_IT_IS[2]))


def header_beside(path: Path) -> tuple[Path, tuple[int, ...], NDArray[np.float64], Any] | None:
    """Return file, shape, affine and NIfTI header of the segmentation beside an .npz, if any."""
    beside = segmentation_beside(path)
    if beside is None:
        return None
    if beside.name.lower().endswith((".mha", ".mhd")):
        return (beside, *read_metaimage_header(beside), None)
    nifti = read_nifti_header(beside)
    return beside, nifti.shape, nifti.affine, nifti.nifti


def place_probabilities(path: Path, stored: tuple[int, ...]) -> Placement:
    """Return where class probabilities lie in the image.

    Parameters
    ----------
    path
        The .npz; the files beside it tell.
    stored
        Shape of one class as (x, y, z) of nnU-Net's array, that is, reversed.

    Raises
    ------
    ValueError
        The reader is not known, turned the image and there is no segmentation that tells how, or
        reads pictures; or the shape is not that of the segmentation. The message names `path`.
    """
    reader = reader_of(path)
    found = header_beside(path)
    if found is None:
        if reader.turns:
            raise InputError(
                f"{reader.named}, which turns images to RAS, and how the image lay before "
                "is told by the segmentation that nnU-Net writes with the probabilities: put it "
                f"beside them, as {path.stem}.nii.gz or {path.stem}.mha",
                file=path,
            )
        if reader.pictures:
            raise InputError(
                f"{reader.named}: TIFF and other pictures are not read here, neither as "
                "annotations nor as segmentations. Convert them to NIfTI, with axes (x, y, z) and "
                "x along the rows of a picture, and put the segmentation beside the "
                f"probabilities, as {path.stem}.nii.gz",
                file=path,
            )
        return Placement(stored, None, None, None, reader, AS_IT_IS)
    beside, shape, affine, header = found
    try:
        ras = from_ras(affine)
    except ValueError as error:
        if reader.turns:
            raise InputError(
                f"{reader.named}, which turns images to RAS, but the header of {beside} "
                f"{error}; mend it",
                file=path,
            ) from error
        ras = AS_IT_IS
    back = ras if reader.turns else AS_IT_IS
    found_shape = _shape_after(stored, back)
    if found_shape != shape:
        message = (
            f"shape {found_shape} (x, y, z) differs from {shape} of the segmentation {beside}; "
            "nnU-Net version 1 saves a cropped or resampled softmax, which must be put back on the "
            "image's grid first"
        )
        if not reader.turns and _shape_after(stored, ras) == shape:
            message += (
                f". It fits if nnU-Net's reader has turned the image to RAS, but {reader.named}: "
                "put the plans.json of the networks beside it, which names their reader"
            )
        raise InputError(message, file=path)
    return Placement(shape, affine, header, beside, reader, back)


def compare_with_segmentation(
    path: Path,
    placement: Placement,
    classes: Sequence[int],
    count: int,
    scores: Slabs,
    labels: Callable[[Path], Slabs],
) -> Comparison | None:
    """Return what compares a score with the segmentation beside it, None if nothing can be said.

    Parameters
    ----------
    path, placement
        Of the score.
    classes, count
        Channels that were merged, and how many there are.
    scores
        The score, on the grid of the file.
    labels
        Opens the segmentation.
    """
    expected = expectation(describe_channels(path), count, classes)
    if placement.segmentation is None or expected is None:
        return None
    return Comparison(path, placement, expected, scores, labels(placement.segmentation))


class Comparison:
    """Compares a score with the segmentation beside it while it is read.

    That takes one pass over the segmentation, a byte a voxel in the file's memory, beside the one
    over the probabilities. Only a score that fits poorly is read once more.

    Attributes
    ----------
    notes
        What to tell, when the score has been read to its end: at most one remark.
    """

    def __init__(
        self, path: Path, placement: Placement, expected: Expectation, scores: Slabs, labels: Slabs
    ) -> None:
        self.notes: list[str] = []
        self._path, self._placement, self._expected = path, placement, expected
        self._scores, self._labels = scores, labels

    def slabs(self, depths: Sequence[int]) -> Iterator[NDArray[Any]]:
        """Yield the slabs of the score.

        Raises
        ------
        ValueError
            At the end: in another order of axes the score fits the segmentation clearly better.
        """
        agreement = Agreement(self._expected)
        for score, labels in zip(self._scores(depths), self._labels(depths), strict=True):
            agreement.add(score, labels)
            yield score
        if agreement.poor:
            self._check_order(agreement, depths)
        segmentation = self._placement.segmentation
        assert segmentation is not None  # noqa: S101 - there is something to compare with
        contradicted = agreement.missing + agreement.surplus
        told = (
            f"the segmentation {segmentation.name} contradicts the class probabilities in "
            f"{contradicted:,} voxel{'s' * (contradicted > 1)}: it was changed since, as by "
            "post-processing, or is of another prediction; only its geometry is used"
        )
        self.notes[:] = [told] if contradicted else []

    def _check_order(self, agreement: Agreement, depths: Sequence[int]) -> None:
        place = self._placement
        assert place.affine is not None  # noqa: S101 - it is that of the segmentation
        assert place.segmentation is not None  # noqa: S101
        try:
            ras = from_ras(place.affine)
        except ValueError:  # a header without a place in space: no axes to name
            return
        # From what was taken to what it would be if the reader did, or did not, turn the image.
        other = ras if not place.reader.turns else _reversed(ras)
        better = find_better_order(
            agreement, place.shape, self._scores(depths), self._labels(depths), [other]
        )
        if better is None:
            return
        order, after, before = better
        taken = axis_codes(place.back, place.affine)
        fits = axis_codes(joined(place.back, order), place.affine)
        raise InputError(
            f"its axes (x, y, z) were taken to point to {', '.join(taken)} "
            f"({place.reader.named}), where {before:.0%} of the tumour's voxels in "
            f"{place.segmentation.name} have a probability too low for their label; pointing to "
            f"{', '.join(fits)} it would be {after:.0%}. If both files are of one prediction, put "
            "the plans.json of its networks beside them, which names their reader and so the "
            "order of axes; if not, put the segmentation of this prediction there",
            file=self._path,
        )


def _reversed(orientation: Orientation) -> Orientation:
    axes = np.argsort(orientation[:, 0])
    return np.column_stack([axes, orientation[axes, 1]]).astype(np.float64)


def _shape_after(shape: tuple[int, ...], orientation: Orientation) -> tuple[int, ...]:
    return tuple(shape[axis] for axis in np.argsort(orientation[:, 0]))
