"""Small volumes and their files, for the tests of everything that reads them."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
from hypothesis import HealthCheck, settings

from twintrack.volumes import Volume, read_volume

SHAPE = (5, 4, 3)

# Oblique, with a flip, so that no axis and no sign can be mixed up unnoticed.
AFFINE = np.array(
    [[-0.7, 0.1, 0.0, 90.5], [0.1, 0.7, 0.2, -40.25], [0.0, -0.2, 2.5, 12.0], [0, 0, 0, 1]]
)

# One folder serves all examples of a property: each example overwrites its file.
fuzz = settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def scores(shape: tuple[int, ...] = SHAPE, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(0).random(shape).astype(dtype)


def nifti_bytes(array: np.ndarray, image_class: type = nib.Nifti1Image, order: str = "<") -> bytes:
    """A NIfTI file as nibabel writes it, in the given byte order and without scaling."""
    header = image_class.header_class(endianness=order)
    header.set_data_dtype(array.dtype)
    image = image_class(array, AFFINE, header, dtype=array.dtype)
    return image.to_bytes()


def read_or_clean_error(path: Path) -> Volume | None:
    """Read `path`; whatever is not a ValueError or OSError that names it fails the test."""
    try:
        return read_volume(path)
    except (ValueError, OSError) as error:
        if str(path) not in str(error):
            raise AssertionError(f"does not name its file: {error}") from error
        return None


def class_probabilities(classes: int = 3, dtype: str = "float32") -> np.ndarray:
    """Softmax of shape (class, z, y, x)."""
    exponentials = np.exp(np.random.default_rng(1).normal(0, 3, (classes, *SHAPE[::-1])))
    return (exponentials / exponentials.sum(0)).astype(dtype)


def describe_labels(folder: Path, **labels: int | list[int]) -> None:
    """Write what nnU-Net leaves beside its predictions: without lists, labels are classes."""
    (folder / "dataset.json").write_text(json.dumps({"labels": {"background": 0, **labels}}))
