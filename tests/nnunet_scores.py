"""Folders as nnU-Net leaves them, its class probabilities written as each of its readers does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt, io_orientation
from scipy.spatial.transform import Rotation

from twintrack.volumes.slabs import open_slabs

SPACING = (0.8, 1.1, 2.6)


def affine_of(codes: str, oblique: bool = False) -> np.ndarray:
    """The affine of a file whose axes point to `codes`, as "LPS"; exactly or about."""
    affine = np.eye(4)
    for axis, (out, flip) in enumerate(axcodes2ornt(tuple(codes))):
        affine[:3, axis] = flip * SPACING[axis] * np.eye(3)[int(out)]
    if oblique:
        affine[:3, :3] = (
            Rotation.from_euler("xyz", (17, -12, 21), True).as_matrix() @ affine[:3, :3]
        )
    affine[:3, 3] = (-31, 12, 240)
    return affine


def as_read(array: np.ndarray, affine: np.ndarray, reader: str) -> np.ndarray:
    """What is (x, y, z) in a file as the (z, y, x) of a reader, by nibabel's own reorienting."""
    if reader.endswith("Reorient"):
        image = nib.Nifti1Image(array.astype(np.float64), affine)
        array = image.as_reoriented(io_orientation(affine)).get_fdata().astype(array.dtype)
        assert nib.aff2axcodes(image.as_reoriented(io_orientation(affine)).affine) == tuple("RAS")
    return array.transpose(2, 1, 0)


def probabilities(shape: tuple[int, int, int], seed: int = 0, classes: int = 3) -> np.ndarray:
    """Class probabilities (c, x, y, z): a tumour, class 1, that no turn maps onto itself."""
    rng = np.random.default_rng(seed)
    grid = np.meshgrid(*(np.arange(n) / n for n in shape), indexing="ij")
    centres, widths = np.array([0.3, 0.35, 0.7]), np.array([0.22, 0.16, 0.2])
    away = sum(((x - c) / w) ** 2 for x, c, w in zip(grid, centres, widths, strict=True))
    logits = rng.normal(size=(classes, *shape)) / 3
    logits[1] += 3 - 3 * away
    raised = np.exp(logits - logits.max(0))
    return (raised / raised.sum(0)).astype(np.float32)


def write_case(
    folder: Path,
    case: str,
    found: np.ndarray,
    affine: np.ndarray,
    reader: str,
    segmentation: np.ndarray | None = None,
) -> Path:
    """Write ``CASE.npz`` and ``CASE.nii.gz`` of class probabilities (c, x, y, z)."""
    folder.mkdir(parents=True, exist_ok=True)
    stored = np.stack([as_read(channel, affine, reader) for channel in found])
    np.savez_compressed(folder / f"{case}.npz", probabilities=stored)
    labels = found.argmax(0) if segmentation is None else segmentation
    nib.save(nib.Nifti1Image(labels.astype(np.uint8), affine), folder / f"{case}.nii.gz")
    return folder / f"{case}.npz"


def describe(folder: Path, plans: str | None = None, **dataset: Any) -> None:
    """Write ``plans.json``, if a reader is given, and ``dataset.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    if plans is not None:
        (folder / "plans.json").write_text(json.dumps({"image_reader_writer": plans}))
    labels = {"background": 0, "tumour": 1, "pancreas": 2}
    content = {"labels": labels, "file_ending": ".nii.gz", **dataset}
    (folder / "dataset.json").write_text(json.dumps(content))


def in_slabs(path: Path, tumour: tuple[int, ...] = (1,), planes: int = 3) -> Any:
    """The array of `open_slabs`, and what it returned."""
    opened = open_slabs(path, tumour)
    array = np.concatenate(list(opened.slabs(planes)), axis=2)
    assert opened.place.array.shape == array.shape
    assert opened.place.array.dtype == array.dtype
    return array, opened


class Placed:
    """Writes the case "a" as `reader` does, and that it was read by `said`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(
        self,
        reader: str,
        said: str | None = "the same",
        codes: str = "LPS",
        oblique: bool = False,
        found: np.ndarray | None = None,
        segmentation: np.ndarray | None = None,
    ) -> tuple[Path, np.ndarray, np.ndarray]:
        affine = affine_of(codes, oblique)
        found = probabilities((14, 12, 10)) if found is None else found
        describe(self.folder, reader if said == "the same" else said)
        return write_case(self.folder, "a", found, affine, reader, segmentation), found, affine
