"""Maps of all patients but one, for figures of each case that its map has not seen."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from twintrack.calibration.calibrator import Calibrator
from twintrack.calibration.effective import effective_groups
from twintrack.errors import InputError
from twintrack.runs.stored_tallies import StoredTallies


def leave_one_out(
    calibrator: Calibrator, tallies: StoredTallies, region: str
) -> Iterator[tuple[str, Calibrator]]:
    """Yield for every case a calibrator fitted to all cases of other patients.

    Parameters
    ----------
    calibrator
        Fitted; the parameters of its map are taken over, and its number of bins where it was
        chosen. The facts of its map hold for these maps too, which have none of their own.
    tallies
        What `read_tallies` gives. A case is in memory at a time. The cases of a patient come one
        after the other.
    region
        Which voxels the tallies counted.

    Raises
    ------
    InputError
        There are fewer than two patients.
    """
    groups = tallies.groups()
    if len(groups) < 2:
        raise InputError(f"leaving one patient out needs at least two, here {len(groups)}")
    parameters = {**calibrator.made_with_, "bins": calibrator.bins_used, "exact": False}
    weights = tallies.weights(parameters["case_weight"])
    total, everyone = tallies.total(weights), tallies.fitted_cases()
    bounded = "auto" in (parameters["floor"], parameters["ceiling"])
    responses = tallies.responses(weights) if bounded else []
    for number, group in enumerate(groups.values()):
        own = tallies.of(group)
        fitted = Calibrator(**parameters)
        fitted.record_cases(known for case, known in everyone.items() if case not in group)
        fitted.add_tally(
            total - own.total(weights),
            region=region,
            cases=len(everyone) - len(group),
            effective=effective_groups(np.delete(responses, number)) if bounded else None,
            voxels=None if weights is None else tallies.voxels() - own.voxels(),
        )
        for case in group:
            yield case, fitted.finish(facts=False)
