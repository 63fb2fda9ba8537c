"""Runs over a cohort of .nii.gz files, as the commands of the same names make them."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import ClassVar

from twintrack import Calibrator
from twintrack.runs.apply import ApplyJob, apply_cohort
from twintrack.runs.engine import Settings
from twintrack.runs.evaluate import EvaluateJob, evaluate_cohort
from twintrack.runs.fit import TallyJob, fit_cohort

from .inputs import choices, ct_case, write_case
from .metrics.evaluation import SHAPES


class Cohort:
    """CTs of a million voxels with five raters and vessels."""

    params: ClassVar[list[int]] = choices(2, 8)
    param_names: ClassVar[list[str]] = ["cases"]

    def setup(self, cases: int) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.cases = [
            write_case(self.folder, ct_case(SHAPES["1M"], index)) for index in range(cases)
        ]
        self.again = Settings(force=True)
        self.calibrator = self.fit(self.again)
        self.evaluate(self.again)

    def teardown(self, _: int) -> None:
        shutil.rmtree(self.folder)

    def fit(self, settings: Settings) -> Calibrator:
        fitted = Calibrator()
        fit_cohort(self.cases, fitted, TallyJob("box"), self.folder / "fit", settings=settings)
        return fitted

    def evaluate(self, settings: Settings) -> None:
        evaluate_cohort(self.cases, EvaluateJob(), self.folder / "evaluate", settings=settings)

    def time_fit(self, _: int) -> None:
        self.fit(self.again)

    def time_evaluate(self, _: int) -> None:
        self.evaluate(self.again)

    def time_apply(self, _: int) -> None:
        apply_cohort(
            self.cases,
            ApplyJob(self.calibrator, self.folder / "apply"),
            existing="overwrite",
            settings=self.again,
        )

    def time_evaluate_stored(self, _: int) -> None:
        self.evaluate(Settings())

    def peakmem_evaluate(self, _: int) -> None:
        self.evaluate(self.again)
