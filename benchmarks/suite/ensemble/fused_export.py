"""Exporting the members of an ensemble: 3 members, 7 classes, float16 logits."""

from __future__ import annotations

from typing import Any, ClassVar

from twintrack import ExportGeometry, export_score

from ..inputs import choices
from .merge import calibration_map, members

SPACING = (1.0, 0.7, 0.7)  # mm, of the image


class Export:
    """`export_score`: to an image of twice as many voxels along every axis."""

    params: ClassVar[list[list[Any]]] = [choices(32, 64, 128), choices("nnunet", "torch")]
    param_names: ClassVar[list[str]] = ["edge", "resampling"]

    def setup(self, edge: int, _: str) -> None:
        self.members = members((edge, edge, edge))
        self.map = calibration_map()
        self.geometry = ExportGeometry(
            shape=(2 * edge, 2 * edge, 2 * edge),
            box=((0, 2 * edge),) * 3,
            spacing=SPACING,
            member_spacing=(2.0, 1.4, 1.4),
        )

    def time_export(self, _: int, resampling: Any) -> None:
        export_score(self.members, self.geometry, calibrator=self.map, resampling=resampling)

    def peakmem_export(self, _: int, resampling: Any) -> None:
        export_score(self.members, self.geometry, calibrator=self.map, resampling=resampling)
