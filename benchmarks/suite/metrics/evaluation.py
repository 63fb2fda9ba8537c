"""Evaluating a CT: all metrics, and their parts."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from twintrack import CaseTally, evaluate, reliability_curve
from twintrack.metrics.crps import crps_corrected, crps_official
from twintrack.metrics.vascular import contact_degrees, invasion_distances

from ..inputs import choices, ct_case, ensemble_case

SHAPES = {"1M": (128, 128, 64), "10M": (256, 256, 160), "42M": (512, 512, 160)}
"""CTs by their voxels."""


class Evaluate:
    """`evaluate` with and without vessels."""

    params: ClassVar[list[list[Any]]] = [
        choices(*SHAPES),
        choices("official", "corrected"),
        choices(1, 3),
    ]
    param_names: ClassVar[list[str]] = ["voxels", "protocol", "networks"]

    def setup(self, voxels: str, _: str, networks: int) -> None:
        self.case = ensemble_case(ct_case(SHAPES[voxels]), networks)

    def time_evaluate(self, _: str, protocol: Any, __: int) -> None:
        evaluate(self.case.score, self.case.raters, protocol=protocol)

    def time_evaluate_with_vessels(self, _: str, protocol: Any, __: int) -> None:
        evaluate(self.case.score, self.case.raters, self.case.vessels, protocol=protocol)

    def peakmem_evaluate_with_vessels(self, _: str, protocol: Any, __: int) -> None:
        evaluate(self.case.score, self.case.raters, self.case.vessels, protocol=protocol)


class Parts:
    """One pass each, five raters."""

    params: ClassVar[list[str]] = choices(*SHAPES)
    param_names: ClassVar[list[str]] = ["voxels"]

    def setup(self, voxels: str) -> None:
        self.case = ct_case(SHAPES[voxels])

    def time_case_tally(self, _: str) -> None:
        CaseTally(5).update(self.case.score, self.case.raters)

    def time_reliability_curve(self, _: str) -> None:
        reliability_curve(self.case.score, self.case.raters)

    def time_contact_degrees(self, _: str) -> None:
        contact_degrees(self.case.score, self.case.raters, self.case.vessels)

    def peakmem_case_tally(self, _: str) -> None:
        CaseTally(5).update(self.case.score, self.case.raters)

    def peakmem_contact_degrees(self, _: str) -> None:
        contact_degrees(self.case.score, self.case.raters, self.case.vessels)


class Figures:
    """What is computed from the sums alone."""

    def setup(self) -> None:
        rng = np.random.default_rng(0)
        self.volumes = rng.normal(20_000, 1000, 5)
        case = ct_case(SHAPES["1M"])
        self.degrees = contact_degrees(case.score, case.raters, case.vessels)

    def time_crps_official(self) -> None:
        crps_official(21_000, self.volumes)

    def time_crps_corrected(self) -> None:
        crps_corrected(21_000, self.volumes)

    def time_invasion_official(self) -> None:
        invasion_distances(self.degrees)

    def time_invasion_corrected(self) -> None:
        invasion_distances(self.degrees, "corrected")
