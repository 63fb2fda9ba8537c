"""Band of a map over the patients of stored tallies, thousands of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from numpy.typing import ArrayLike

from twintrack.calibration.calibrator import Calibrator
from twintrack.calibration.case_weights import times
from twintrack.calibration.map_band import BandKind, MapBand, band_of_groups
from twintrack.calibration.score_tally import ScoreTally
from twintrack.runs.patience import patiently
from twintrack.runs.progress import Progress
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
    shown = patiently(
        _each_patient(tallies, weights, patients),
        progress or Progress(),
        "Band",
        len(patients),
        lambda found: (found[0], found[1].voxels),
    )
    return band_of_groups(
        calibrator.map_,
        calibrator.tally_fit,
        tallies.total(weights),
        (tally for _, tally in shown),
        len(patients),
        scores,
        level=level,
        kind=kind,
        seed=made_with["seed"],
    )


def _each_patient(
    tallies: StoredTallies, weights: Mapping[str, int] | None, patients: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, ScoreTally]]:
    """Yield each patient with the sum of his tallies."""
    for patient, cases in patients.items():
        own = [
            times(packed.tally(counts_votes=False), 1 if weights is None else weights[case])
            for case, packed in tallies.of(cases).narrow()
        ]
        yield patient, ScoreTally.of_all(own)
