"""Band of a map over the patients of stored tallies, thousands of them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

from numpy.typing import ArrayLike

from twintrack.calibration.calibrator import Calibrator
from twintrack.calibration.group_tally import GroupTally
from twintrack.calibration.map_band import BandKind, MapBand, band_of_groups
from twintrack.runs.engine import Outcome
from twintrack.runs.progress import Progress, once_it_takes_long
from twintrack.runs.stored_tallies import StoredTallies


def band_over_cases(
    calibrator: Calibrator,
    tallies: StoredTallies,
    scores: ArrayLike | None = None,
    level: float = 0.95,
    kind: BandKind = "pointwise",
    *,
    progress: Progress | None = None,
) -> MapBand:
    """Return the band of a fitted map, exactly that of `Calibrator.band` with the same cases.

    Parameters
    ----------
    calibrator
        Fitted; its map, target and number of bins are used.
    tallies
        What `read_tallies` gives. A patient is in memory at a time, besides the sum of all.
    scores, level, kind
        As in `Calibrator.band`.
    progress
        Told of the patients if they take more than two seconds.

    Raises
    ------
    ValueError
        As `Calibrator.band`.
    """
    patients, made_with = tallies.groups(), calibrator.made_with_
    weights = tallies.weights(made_with["case_weight"])
    return band_of_groups(
        calibrator.map_,
        calibrator.tally_fit,
        tallies.total(weights),
        each_patient(
            tallies,
            weights,
            patients,
            progress or Progress(),
            counts_votes=made_with["target"] == "majority",
        ),
        len(patients),
        scores,
        level=level,
        kind=kind,
        seed=made_with["seed"],
    )


def each_patient(
    tallies: StoredTallies,
    weights: Mapping[str, int] | None,
    patients: Mapping[str, Sequence[str]],
    progress: Progress,
    work: str = "Band",
    counts_votes: bool = False,
) -> Iterator[GroupTally]:
    """Yield each patient's tallies; tell of them, as `work`, once it takes long.

    Without the voxels with exactly k votes unless `counts_votes`: targets of majorities ask for it.
    """
    with once_it_takes_long(progress, work, len(patients)) as tell:
        last = time.monotonic()
        for patient, cases in patients.items():
            own = [packed.tally(counts_votes) for _, packed in tallies.of(cases).narrow()]
            times = [1 if weights is None else weights[case] for case in cases]
            group = GroupTally.of(own, times)
            yield group
            now = time.monotonic()
            tell(Outcome(patient, "done", 0, now - last, group.total.voxels))
            last = now
