"""Small stores of tallies, as fits of cohorts leave them, for tests of studies."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from twintrack import ScoreTally
from twintrack.runs.fit import TallyJob
from twintrack.runs.records import Entry
from twintrack.runs.store import Store

RATERS = 3


def simulated(seed, slope=0.5, shift=-1.0, raters=RATERS):
    """Score, raters and a region of a case; the score is over-confident for slopes below 1."""
    rng = np.random.default_rng(seed)
    at = np.linspace(-1, 1, 14)
    distance = 1.6 * rng.uniform(0.3, 0.8) - np.sqrt(sum(g**2 for g in np.meshgrid(at, at, at)))
    logit = 9 * distance + rng.normal(0, 1.0, distance.shape)
    # In steps, so that cells are few and tests are quick.
    score = expit(np.clip(np.round(logit * 4) / 4, -12, 12)).astype(np.float32)
    truth = expit(slope * logit + shift + rng.normal(0, 0.3))
    return score, [rng.random(score.shape) < truth for _ in range(raters)], distance > -0.6


def write_store(folder, cases, patients, regions=("all",), raters=RATERS, absent=(), **model):
    """Write the tallies of cases of some patients, whom the raters that are absent did not see.

    Returns the tallies of the first region by case.
    """
    found = {}
    for region in regions:
        with Store(folder, "score-tally", TallyJob(region).options).writing(cases) as store:
            for case, patient in zip(cases, patients, strict=True):
                score, marks, inside = simulated(int(case[1:]), raters=raters, **model)
                marks = [None if k in absent else mark for k, mark in enumerate(marks)]
                mask = None if region == "all" else inside
                tally = ScoreTally(raters).update(score, marks, mask, rule=region).compact()
                if region == regions[0]:
                    found[case] = tally
                place = store.tally_path(case)
                tally.save(store.staged(place.name))
                entry = Entry(
                    case,
                    {},
                    score.size,
                    {"voxels_in_region": tally.voxels, "ensemble": {}},
                    {"tally": store.stamp_staged(place.name, place)},
                ).of_patient(patient)
                store.save(entry, {store.staged(place.name): place})
    return found


def names(count, first=0):
    """Names of cases, and of their patients: two cases of one patient each."""
    numbers = range(first, first + count)
    return [f"c{n:03d}" for n in numbers], [f"p{n // 2:03d}" for n in numbers]
