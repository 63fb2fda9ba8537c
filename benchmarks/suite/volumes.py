"""Reading and writing volumes."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from twintrack.volumes import read_label_map, read_labels, read_score, write_volume

from .inputs import choices, ct_case
from .metrics.evaluation import SHAPES


class Files:
    """A CT's score, and masks."""

    params: ClassVar[list[list[Any]]] = [choices("1M", "10M"), choices(".nii.gz", ".nii")]
    param_names: ClassVar[list[str]] = ["voxels", "format"]

    def setup(self, voxels: str, suffix: str) -> None:
        self.folder = Path(tempfile.mkdtemp())
        case = ct_case(SHAPES[voxels])
        self.array, self.affine = case.score, case.affine
        self.score, self.labels, self.new = (
            self.folder / f"{name}{suffix}" for name in ("score", "labels", "new")
        )
        write_volume(self.score, case.score, case.affine)
        write_volume(self.labels, case.vessels, case.affine)

    def teardown(self, *_: Any) -> None:
        shutil.rmtree(self.folder)

    # Uncompressed files are mapped, not read: summing them brings every page in.

    def time_read_score(self, *_: Any) -> None:
        read_score(self.score).array.sum()

    def time_read_labels(self, *_: Any) -> None:
        read_labels(self.labels).array.sum()

    def time_read_label_map(self, *_: Any) -> None:
        read_label_map(self.labels).array.sum()

    def peakmem_read_score(self, *_: Any) -> None:
        read_score(self.score).array.sum()

    def time_write_score(self, *_: Any) -> None:
        write_volume(self.new, self.array, self.affine)


class Probabilities:
    """nnU-Net's CASE.npz of two classes."""

    params: ClassVar[list[str]] = choices("1M", "10M")
    param_names: ClassVar[list[str]] = ["voxels"]

    def setup(self, voxels: str) -> None:
        self.folder = Path(tempfile.mkdtemp())
        tumour = ct_case(SHAPES[voxels]).score.T
        self.path = self.folder / "case.npz"
        np.savez_compressed(self.path, probabilities=np.stack([1 - tumour, tumour]))

    def teardown(self, _: str) -> None:
        shutil.rmtree(self.folder)

    def time_read_score(self, _: str) -> None:
        read_score(self.path)

    def peakmem_read_score(self, _: str) -> None:
        read_score(self.path)
