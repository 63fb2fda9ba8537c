"""Equal-mass bins of a tally."""

from __future__ import annotations

from typing import Any, ClassVar

from twintrack import ScoreTally

from ..inputs import DISTRIBUTIONS, choices, rater_masks, scores


class EqualMassBins:
    """From the tally of 10^6 voxels."""

    params: ClassVar[list[list[Any]]] = [choices(250, 10, 2000), choices(*DISTRIBUTIONS)]
    param_names: ClassVar[list[str]] = ["bins", "scores"]

    def setup(self, bins: int, distribution: str) -> None:  # noqa: ARG002
        score = scores(10**6, distribution)
        self.tally = ScoreTally(5).update(score, rater_masks(score)).compact()

    def time_equal_mass_bins(self, bins: int, *_: Any) -> None:
        self.tally.equal_mass_bins(bins)

    def peakmem_equal_mass_bins(self, bins: int, *_: Any) -> None:
        self.tally.equal_mass_bins(bins)
