"""Headers of images as ITK reads them, through SimpleITK (``pip install 'twintrack[mha]'``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twintrack.errors import InputError

# ITK counts x and y towards left and posterior, NIfTI towards right and anterior.
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def simpleitk(path: Path) -> Any:
    """Return the module; `path` is what it is needed for."""
    try:
        import SimpleITK
    except ImportError as error:
        raise ImportError(
            f"{path}: MetaImage and NRRD files need SimpleITK: pip install 'twintrack[mha]'"
        ) from error
    return SimpleITK


def read_information(path: Path, reader_name: str) -> Any:
    """Return SimpleITK's reader of a file, which has read the header with the named ImageIO."""
    reader = simpleitk(path).ImageFileReader()
    reader.SetImageIO(reader_name)  # ITK chooses by the ending, and does not know A.MHD
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return reader


def affine_of(reader: Any, space: Sequence[int]) -> NDArray[np.float64]:
    """Return the (4, 4) index to mm in RAS+ of three axes of an image.

    An image of two axes is a plane that is 1 mm thick.

    Raises
    ------
    InputError
        Other axes are turned into these.
    """
    axes = reader.GetDimension()
    size = max(axes, 3)
    matrix, origin = np.eye(size), np.zeros(size)
    matrix[:axes, :axes] = np.reshape(reader.GetDirection(), (axes, axes)) * reader.GetSpacing()
    origin[:axes] = reader.GetOrigin()
    others = [axis for axis in range(size) if axis not in space]
    if matrix[np.ix_(space, others)].any() or matrix[np.ix_(others, space)].any():
        raise InputError(f"its directions turn the axes {tuple(space)} into others")
    affine = np.eye(4)
    affine[:3, :3] = matrix[np.ix_(space, space)]
    affine[:3, 3] = origin[list(space)]
    in_ras: NDArray[np.float64] = LPS_TO_RAS @ affine
    return in_ras
