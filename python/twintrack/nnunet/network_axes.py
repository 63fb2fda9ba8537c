"""The axes of an image as nnU-Net's networks see them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from twintrack.nnunet.images import Image
from twintrack.nnunet.roi import Box, Roi


class NetworkAxes:
    """The image as the networks see it: axes reversed, and turned to RAS first if they want it.

    Attributes
    ----------
    spacing
        Voxel size in mm along the networks' axes (z, y, x).
    patient_axes
        Which patient axis each of them runs along: see `Image.patient_axes`.
    """

    def __init__(self, image: Image, canonical: bool) -> None:
        self._order, self._flips = (
            image.canonical() if canonical else ((0, 1, 2), (False, False, False))
        )
        z, y, x = reversed(self._order)
        spacing, patient = image.spacing, image.patient_axes()
        self.spacing: tuple[float, float, float] = (spacing[z], spacing[y], spacing[x])
        self.patient_axes: tuple[int, int, int] = (patient[z], patient[y], patient[x])
        self._shape = image.shape

    def view(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return a view (z, y, x) of an array (x, y, z)."""
        flips = tuple(slice(None, None, -1 if flip else 1) for flip in self._flips)
        turned: NDArray[Any] = array.transpose(self._order)[flips].T
        return turned

    def back(self, roi: Roi) -> Roi:
        """Return a region of the networks' axes as one of the image."""
        parts: list[slice] = [slice(0)] * 3
        for part, axis, flip in zip(reversed(roi.box), self._order, self._flips, strict=True):
            length = self._shape[axis]
            parts[axis] = slice(length - part.stop, length - part.start) if flip else part
        x, y, z = parts
        box: Box = (x, y, z)
        if roi.inside is not None:
            flips = tuple(slice(None, None, -1 if flip else 1) for flip in self._flips)
            back: NDArray[np.bool_] = roi.inside.T[flips].transpose(np.argsort(self._order))
            return Roi(box, back, roi.found)
        return Roi(box, None, roi.found)
