"""ScoreTally: one pass over scores and five raters."""

from __future__ import annotations

import pickle
from typing import Any, ClassVar

from twintrack import ScoreTally

from ..inputs import DISTRIBUTIONS, choices, rater_masks, scores


class Update:
    """Adding voxels."""

    params: ClassVar[list[list[Any]]] = [choices(10**5, 10**6, 10**7), choices(*DISTRIBUTIONS)]
    param_names: ClassVar[list[str]] = ["voxels", "scores"]

    def setup(self, voxels: int, distribution: str) -> None:
        self.score = scores(voxels, distribution)
        self.raters = rater_masks(self.score)
        self.tally = ScoreTally(5)

    def time_update(self, *_: Any) -> None:
        self.tally.update(self.score, self.raters)

    def time_new_tally(self, *_: Any) -> None:
        ScoreTally(5).update(self.score, self.raters)

    def peakmem_update(self, *_: Any) -> None:
        self.tally.update(self.score, self.raters)


class Volume:
    """Adding a volume that does not lie in memory as the masks do, with and without a region."""

    params: ClassVar[list[list[Any]]] = [["C", "F"], [False, True]]
    param_names: ClassVar[list[str]] = ["order of the masks", "region"]

    def setup(self, order: str, region: bool) -> None:
        shape = (256, 256, 64)
        score = scores(256 * 256 * 64, "background")
        self.raters = [mask.reshape(shape, order=order) for mask in rater_masks(score)]
        self.score = score.reshape(shape)
        self.region = self.score > 1e-3 if region else None
        self.tally = ScoreTally(5)

    def time_update(self, *_: Any) -> None:
        self.tally.update(self.score, self.raters, self.region)


class Finished:
    """What is done with a tally of 10^6 voxels."""

    params: ClassVar[list[str]] = choices(*DISTRIBUTIONS)
    param_names: ClassVar[list[str]] = ["scores"]

    def setup(self, distribution: str) -> None:
        score = scores(10**6, distribution)
        self.tally = ScoreTally(5).update(score, rater_masks(score))
        self.total = ScoreTally(5)

    def time_add(self, *_: Any) -> None:
        self.total += self.tally

    def time_pickle(self, *_: Any) -> None:
        pickle.loads(pickle.dumps(self.tally))

    def track_pickle_bytes(self, *_: Any) -> int:
        return len(pickle.dumps(self.tally))
