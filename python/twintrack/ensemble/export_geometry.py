"""Where the voxels of a member's array lie in the image, as nnU-Net exports them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from twintrack.errors import InputError

T = TypeVar("T")

ANISOTROPY_LIMIT = 3.0
"""Largest over smallest spacing above which nnU-Net resamples the coarsest axis on its own."""


@dataclass(frozen=True)
class ExportGeometry:
    """Where the voxels of a member's array lie in the image.

    All but `transpose` is in the order of the image array's axes.

    Parameters
    ----------
    shape : (3,) int
        The whole image.
    box : (3,) pairs of int
        First voxel and the one after the last, by axis, of the part that the network saw (nnU-Net's
        crop to the non-zero region). The member's array covers just this box.
    spacing : (3,) float
        Of the image, in mm.
    member_spacing : (3,) float
        Of the member's voxels, in mm: nnU-Net's configured one. It decides with `spacing` whether
        the coarsest axis is resampled on its own; the factors follow from the shapes.
    transpose : (3,) int
        Axis i of the member's array runs along axis ``transpose[i]`` of the image (nnU-Net's
        ``transpose_forward``).

    Raises
    ------
    ValueError
        If a box is empty or leaves the image, a spacing is not positive, or `transpose` is not an
        order of the axes.
    """

    shape: tuple[int, int, int]
    box: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    spacing: tuple[float, float, float]
    member_spacing: tuple[float, float, float]
    transpose: tuple[int, int, int] = (0, 1, 2)

    def __post_init__(self) -> None:
        if sorted(self.transpose) != [0, 1, 2]:
            raise InputError(f"transpose is {self.transpose}; it must be an order of 0, 1 and 2")
        for name in ("shape", "box", "spacing", "member_spacing"):
            if len(getattr(self, name)) != 3:
                raise InputError(f"{name} is {getattr(self, name)}; it needs one entry an axis")
        for axis, ((start, stop), extent) in enumerate(zip(self.box, self.shape, strict=True)):
            if not 0 <= start < stop <= extent:
                raise InputError(
                    f"box[{axis}] is ({start}, {stop}); it must be a part of the image's "
                    f"{extent} voxels along that axis"
                )
        for name in ("spacing", "member_spacing"):
            if not all(np.isfinite(value) and value > 0 for value in getattr(self, name)):
                raise InputError(f"{name} is {getattr(self, name)}; spacings are positive, in mm")

    @classmethod
    def from_nnunet(
        cls,
        properties: Mapping[str, Any],
        spacing: Sequence[float],
        transpose_forward: Sequence[int] = (0, 1, 2),
    ) -> ExportGeometry:
        """Return the geometry of a case that nnU-Net has preprocessed.

        Parameters
        ----------
        properties
            What nnU-Net's preprocessor returns with the data and stores in ``case.pkl``: `spacing`,
            `shape_before_cropping`, `bbox_used_for_cropping`.
        spacing : (3,) or (2,) float
            The configuration's, in the plans' axis order; a 2-D configuration has none for slices.
        transpose_forward
            The plans'.
        """
        forward = tuple(int(axis) for axis in transpose_forward)
        backward = np.argsort(forward)
        image_spacing = [float(value) for value in properties["spacing"]]
        member = [float(value) for value in spacing]
        if len(member) == 2:
            member = [image_spacing[forward[0]], *member]
        shape = properties["shape_before_cropping"]
        box = properties["bbox_used_for_cropping"]
        return cls(
            shape=_three(int(shape[axis]) for axis in backward),
            box=_three((int(box[axis][0]), int(box[axis][1])) for axis in backward),
            spacing=_three(image_spacing),
            member_spacing=_three(member[axis] for axis in backward),
            transpose=_three(forward),
        )

    def separate_axis(self, force: bool | None = None) -> int | None:
        """Return the image axis that nnU-Net resamples on its own, by nearest neighbour, or None.

        It is the coarsest axis of the member's spacing, or else of the image's, if that is more
        than three times as coarse as the finest, and no other is as coarse. `force` is nnU-Net's
        ``force_separate_z``: True asks for it at any anisotropy, False never does it.
        """
        if force is False:
            return None
        for spacing in (self.member_spacing, self.spacing):
            if force or max(spacing) / min(spacing) > ANISOTROPY_LIMIT:
                coarsest = [axis for axis in range(3) if max(spacing) / spacing[axis] == 1]
                return coarsest[0] if len(coarsest) == 1 else None
        return None


def _three(values: Iterable[T]) -> tuple[T, T, T]:
    a, b, c = values
    return a, b, c
