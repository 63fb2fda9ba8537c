"""Calibrator: from voxels to map."""

from __future__ import annotations

from typing import Any, ClassVar

from twintrack import Calibrator

from ..inputs import DISTRIBUTIONS, choices, rater_masks, scores


class Fit:
    """One case, five raters, 250 bins."""

    params: ClassVar[list[list[Any]]] = [
        choices(10**5, 10**6, 10**7),
        choices(*DISTRIBUTIONS),
        [False, True],
    ]
    param_names: ClassVar[list[str]] = ["voxels", "scores", "exact"]

    def setup(self, voxels: int, distribution: str, exact: bool) -> None:
        self.score = scores(voxels, distribution)
        self.raters = rater_masks(self.score)
        self.calibrator = Calibrator(exact=exact)

    def time_fit(self, *_: Any) -> None:
        self.calibrator.fit(self.score, self.raters)

    def peakmem_fit(self, *_: Any) -> None:
        self.calibrator.fit(self.score, self.raters)


class Cases:
    """Twenty cases of 10^5 voxels: what is computed from their tallies alone."""

    def setup(self) -> None:
        self.calibrator = Calibrator()
        for seed in range(20):
            score = scores(10**5, "background", seed)
            self.calibrator.partial_fit(score, rater_masks(score, seed=seed), case=str(seed))
        self.auto = Calibrator(bins="auto")
        for case, tally in self.calibrator.tallies_.items():
            self.auto.add_tally(tally, case)
        self.first = self.calibrator.tallies_["0"]

    def time_map(self) -> None:
        self.calibrator.add_tally(self.first, "again")
        _ = self.calibrator.map_

    def time_choose_bins(self) -> None:
        self.auto.add_tally(self.first, "again")
        _ = self.auto.map_

    def time_band(self) -> None:
        self.calibrator.band()
