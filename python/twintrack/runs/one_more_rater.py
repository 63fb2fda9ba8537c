"""One more rater: each rater, left out, measured against the others as if he were a score."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twintrack.cohort import LoadedCase
from twintrack.errors import InputError
from twintrack.runs.engine import add_tallies
from twintrack.runs.evaluate import EvaluateJob
from twintrack.runs.job import Product


@dataclass(frozen=True)
class OneMoreRaterJob(EvaluateJob):
    """Measures what one more expert would score: the means over the raters of a case.

    The score of a case is not measured. It still says which grid the case is on.
    """

    @property
    def options(self) -> dict[str, Any]:
        """What decides the figures besides the files."""
        return {**super().options, "one_more_rater": True}

    def _measured(self, loaded: LoadedCase, of_interest: NDArray[Any] | None) -> Product:
        unseen = loaded.aligned.unseen
        products = []
        for number, own in enumerate(loaded.raters):
            if own is None:
                continue
            others = [*loaded.raters[:number], *loaded.raters[number + 1 :]]
            if not any(other is not None for other in others):
                raise InputError("has one rater alone: one more is measured against the others")
            marked = np.asarray(own != 0)
            if unseen is not None:  # where he did not look, nobody is asked
                skipped = own == unseen
                marked &= ~skipped
                others = [
                    None if other is None else np.where(skipped, unseen, other).astype(other.dtype)
                    for other in others
                ]
            score = replace(loaded.score, array=marked.astype(np.float32))
            products.append(
                super()._measured(replace(loaded, score=score, raters=others), of_interest)
            )
        total = None
        for product in products:
            total = add_tallies(total, loaded.case.name, product.tally)
        notes = dict.fromkeys(note for product in products for note in product.result["notes"])
        figures = [product.result["figures"] for product in products]
        means = {name: _mean([one[name] for one in figures]) for name in figures[0]}
        result = {**products[0].result, "figures": means, "notes": [*notes]}
        return Product(products[0].voxels, result, total)


def _mean(values: list[float | None]) -> float | None:
    """Return the mean of the values that are defined; None if there are none."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None
