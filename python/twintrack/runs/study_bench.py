"""StudyBench: maps fitted to halves of a cohort, and all measured in one pass over its tallies."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from twintrack.arrays.by_value import ByValue
from twintrack.arrays.threads import ahead
from twintrack.calibration.score_tally import ScoreTally
from twintrack.calibration.tally_fit import TallyFit
from twintrack.errors import InputError
from twintrack.metrics.case_tally import BINS
from twintrack.metrics.corp import corp
from twintrack.metrics.debiased_error import error_of_bins
from twintrack.metrics.map_figures import MapFigures, figures_of_maps
from twintrack.metrics.mapped_voxels import MappedVoxels, mapped_voxels
from twintrack.metrics.rater_noise import RaterNoise, rater_noise
from twintrack.runs.engine import Outcome
from twintrack.runs.progress import Progress, once_it_takes_long
from twintrack.runs.study_cohort import Half, StudyCohort

CLIP = 1e-6
"""Values are brought into [CLIP, 1 - CLIP] before the logarithms of the log score are taken."""

AnyMap: TypeAlias = Callable[[Any], Any] | None
_Floats: TypeAlias = NDArray[np.float64]


class Trial(NamedTuple):
    """The split whose test half a map is measured on, its name, and the number of its draw."""

    split: int
    name: str
    draw: int = 0


@dataclass(frozen=True, eq=False)
class Measured(ByValue):
    """A map on the cases of a test half.

    Attributes
    ----------
    brier, log_score
        Means over their voxels, the log score of values clipped to [1e-6, 1 - 1e-6].
    noise
        The floor of the raters on these voxels.
    miscalibration
        CORP's MCB.
    squared_error
        Squared calibration error without its bias; NaN unless it was asked for.
    top
        Largest calibrated score.
    tdsc, crps
        Means over cases; CRPS in voxels, by the corrected protocol. NaN unless all voxels were
        counted.
    predicted, marked : (cases,) float64
        Volumes in voxels, likewise.
    """

    brier: float
    log_score: float
    noise: RaterNoise
    miscalibration: float
    squared_error: float
    top: float
    tdsc: float
    crps: float
    predicted: NDArray[np.float64]
    marked: NDArray[np.float64]

    @property
    def excess_brier(self) -> float:
        """Brier score beyond the raters' noise."""
        return self.brier - self.noise.noise

    @property
    def volume_ratio(self) -> float:
        """Predicted volume over marked volume, of all cases together."""
        marked = float(self.marked.sum())
        return float(self.predicted.sum()) / marked if marked else math.nan


@dataclass(frozen=True)
class StudyBench:
    """Where the maps of a cohort are fitted and measured.

    Attributes
    ----------
    cohort, halves
        What is divided, and how.
    maps
        Those to be measured, by trial.
    failed
        Why a map could not be fitted, by name.
    sums
        Sums over the patients who are fitted to in the same splits, by region and these splits.
    """

    cohort: StudyCohort
    halves: Sequence[Half]
    maps: dict[Trial, AnyMap] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    sums: dict[tuple[str, frozenset[int]], ScoreTally] = field(default_factory=dict)

    def adding_up(self, regions: Iterable[str]) -> Iterator[Callable[[], None]]:
        """Yield the works that fill `sums`: each case is read once, whatever the splits."""
        alike: dict[frozenset[int], list[str]] = {}
        for patient in self.cohort.patients:
            splits = frozenset(k for k, half in enumerate(self.halves) if patient in half.fitted)
            alike.setdefault(splits, []).append(patient)

        def add_up(region: str, splits: frozenset[int]) -> None:
            self.sums[region, splits] = self.cohort.total(alike[splits], region)

        for region in regions:
            yield from (partial(add_up, region, splits) for splits in alike)

    def half(self, split: int, region: str, *, fitted: bool) -> ScoreTally:
        """Return the sum over the half that maps are fitted to, or tested on."""
        wanted = (one for one in self.sums if one[0] == region and (split in one[1]) == fitted)
        return ScoreTally.of_all([self.sums[one] for one in wanted])

    def fit(
        self,
        split: int,
        fits: Mapping[str, TallyFit | None],
        tally: ScoreTally,
        draw: int = 0,
    ) -> None:
        """Fit maps to a tally; None leaves the scores as they are."""
        for name, fit in fits.items():
            try:
                self.maps[Trial(split, name, draw)] = None if fit is None else fit(fit.seen(tally))
            except InputError as error:
                self.failed[name] = str(error)

    def measure(self, binned: Sequence[str], progress: Progress) -> dict[Trial, Measured]:
        """Measure all maps on the cases of the test halves.

        Parameters
        ----------
        binned
            Names of maps whose calibration error is asked for.
        progress
            Told of the cases if they take more than two seconds.

        Raises
        ------
        InputError
            A tally is damaged, or of an earlier version, which has no counts of voxels by number of
            votes; names the case.
        """
        groups, found = self.cohort.patients, dict[str, tuple[list[Trial], MapFigures]]()
        response = sum(total.response for total in self.sums.values())
        if not 0 < response < sum(total.voxels for total in self.sums.values()):
            raise InputError(
                f"{self.cohort.name}: no rater marks a voxel, or all mark all of them: there is "
                "nothing that a map could learn"
            )
        tested = [set(half.tested) for half in self.halves]
        order = sorted(self.maps, key=lambda one: one.name not in binned)
        patient_of = {case: patient for patient, cases in groups.items() for case in cases}

        def look(case: str) -> tuple[str, list[Trial], MapFigures | None]:
            trials = [one for one in order if patient_of[case] in tested[one.split]]
            if not trials:
                return case, trials, None
            maps, first = [self.maps[one] for one in trials], sum(t.name in binned for t in trials)
            try:
                return case, trials, figures_of_maps(self.cohort.tallies.tally(case), maps, first)
            except InputError as error:
                raise error.replaced(case=case) from error

        with once_it_takes_long(progress, "Measuring", len(patient_of)) as tell:
            last = time.monotonic()
            for case, trials, figures in ahead(look, list(patient_of)):
                if figures is not None:
                    found[case] = trials, figures
                now = time.monotonic()
                tell(Outcome(case, "done", 0, now - last))
                last = now
        return self._gathered(found, groups, binned)

    def _gathered(
        self,
        found: Mapping[str, tuple[Sequence[Trial], MapFigures]],
        groups: Mapping[str, Sequence[str]],
        binned: Sequence[str],
    ) -> dict[Trial, Measured]:
        measured = {}
        whole = self.cohort.region == "all"
        for split, half in enumerate(self.halves):
            total = self.half(split, self.cohort.region, fitted=False)
            noise = rater_noise(total)
            trials = [one for one in self.maps if one.split == split]
            patients = [patient for patient in half.tested if patient in groups]
            cases = [(k, case) for k, patient in enumerate(patients) for case in groups[patient]]
            at = [{one: k for k, one in enumerate(found[case][0])} for _, case in cases]
            pooled = ahead(lambda one: _pooled(total, self.maps[one]), trials)  # noqa: B023
            for trial, figures in zip(trials, pooled, strict=True):
                own = [(found[case][1], of[trial]) for (_, case), of in zip(cases, at, strict=True)]
                error = math.nan
                if trial.name in binned and len(patients) > 1:
                    count, off = np.zeros((2, len(patients), BINS))
                    for (patient, _), (one, k) in zip(cases, own, strict=True):
                        count[patient] += one.count[k]
                        off[patient] += one.off[k]
                    error = error_of_bins(count, off).squared
                measured[trial] = Measured(
                    **figures,
                    noise=noise,
                    squared_error=error,
                    tdsc=_mean([one.tdsc[k] for one, k in own]) if whole else math.nan,
                    crps=_mean([one.crps[k] for one, k in own]) if whole else math.nan,
                    predicted=np.array([one.predicted[k] if whole else math.nan for one, k in own]),
                    marked=np.array([one.marked for one, _ in own]),
                )
        return measured


def _pooled(total: ScoreTally, one: AnyMap) -> dict[str, float]:
    """Return the figures of the voxels of all cases."""
    voxels = mapped_voxels(total, one)
    parts = corp(voxels)
    return {
        "brier": parts.brier,
        "log_score": _log_score(voxels),
        "miscalibration": parts.miscalibration,
        "top": float(voxels.value[-1]),
    }


def _log_score(voxels: MappedVoxels) -> float:
    m = np.clip(voxels.value, CLIP, 1 - CLIP)
    loss = voxels.response * np.log(m) + (voxels.count - voxels.response) * np.log1p(-m)
    return -float(loss.sum()) / voxels.voxels


def _mean(values: Sequence[float]) -> float:
    """Return the mean of those that are defined."""
    defined = [float(value) for value in values if not math.isnan(value)]
    return math.fsum(defined) / len(defined) if defined else math.nan
