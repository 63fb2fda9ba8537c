"""Results are compared by what they hold: `==` never raises."""

from __future__ import annotations

import dataclasses
import importlib
import pickle
import pkgutil

import numpy as np
import pytest

import twintrack as tt
from twintrack import calibration, ensemble, metrics, statistics
from twintrack.arrays.by_value import ByValue
from twintrack.arrays.case import open_case
from twintrack.calibration.case_weights import Load
from twintrack.calibration.departures import Answers, Departures
from twintrack.calibration.jackknife import jackknife
from twintrack.calibration.map_fit import IDENTITY
from twintrack.calibration.outer_contour import outer_contour
from twintrack.calibration.tally_fit import TallyFit
from twintrack.metrics.corp import corp
from twintrack.metrics.debiased_error import debiased_error
from twintrack.metrics.map_figures import figures_of_maps
from twintrack.metrics.mapped_voxels import mapped_voxels
from twintrack.metrics.rater_noise import rater_noise
from twintrack.metrics.vascular import contact_degrees, invasion_distances


def case(seed=0):
    rng = np.random.default_rng(seed)
    score = np.zeros((9, 10, 11), np.float32)
    score[2 - seed : 7, 3:8, 2:9] = rng.random((5 + seed, 5, 7))
    raters = [rng.random(score.shape) < score for _ in range(3)]
    return score, raters, rng.integers(0, 6, score.shape)


def fitted(seed):
    calibrator = tt.Calibrator(bins=5)
    for name, shift in (("A", 0), ("B", 1)):
        calibrator.partial_fit(*case(seed + shift)[:2], case=name)
    return calibrator


def spread(calibrator):
    groups = calibrator._tallies().each_group()
    total = tt.ScoreTally.of_all([group.total for group in groups])
    return jackknife(calibrator.tally_fit, total, groups, np.array([0.2, 0.8]))


def departures(seed):
    answers = RESULTS["Answers"](seed)
    return Departures(fitted(seed).map_, [answers, answers], answers)


def tally(seed):
    return tt.CaseTally(3).update(*case(seed)[:2])


RESULTS = {
    "CaseMetrics": lambda seed: tt.evaluate(*case(seed)),
    "Figures": lambda seed: tally(seed).figures(),
    "Murphy": lambda seed: tally(seed).figures().murphy,
    "Bins": lambda seed: tally(seed).score_bins,
    "CaseOverview": lambda seed: tt.CaseTally(3).add_and_overview(open_case(*case(seed)[:2])),
    "ReliabilityCurve": lambda seed: tt.reliability_curve(*case(seed)[:2]),
    "ContactDegrees": lambda seed: contact_degrees(*case(seed)),
    "VascularInvasion": lambda seed: invasion_distances(contact_degrees(*case(seed))),
    "MapBand": lambda seed: fitted(seed).band(),
    "VolumeSpread": lambda seed: fitted(seed).band().volumes,
    "VolumeInterval": lambda seed: fitted(seed).volume_interval(100),
    "GroupTally": lambda seed: fitted(seed)._tallies().each_group()[0],
    "Spread": lambda seed: spread(fitted(seed)),
    "TallyFit": lambda seed: TallyFit("single", 250, seed),
    "EqualMassBins": lambda seed: fitted(seed).bins_,
    "BinChoice": lambda seed: tt.Calibrator(bins="auto").merge(fitted_auto(seed)).bin_choice_,
    "BootstrapResult": lambda seed: tt.bootstrap([[seed, np.nan], [2.0, np.nan]], 20),
    "PairedBootstrapResult": lambda seed: tt.paired_bootstrap([[seed], [2]], [[1], [3]], 20),
    "SignFlipResult": lambda seed: tt.sign_flip_test([[seed], [2]], [[1], [3]]),
    "CalibrationMap": lambda seed: fitted(seed).map_,
    "ScoreTally": lambda seed: tt.ScoreTally(3).update(*case(seed)[:2]),
    "CaseTally": tally,
    "TallyMetrics": lambda seed: tt.evaluate_tally(RESULTS["ScoreTally"](seed)),
    "MappedVoxels": lambda seed: mapped_voxels(RESULTS["ScoreTally"](seed)),
    "MapFigures": lambda seed: figures_of_maps(RESULTS["ScoreTally"](seed), [None], 1),
    "Corp": lambda seed: corp(RESULTS["MappedVoxels"](seed)),
    "DebiasedError": lambda seed: debiased_error([RESULTS["MappedVoxels"](seed)] * 2),
    "RaterNoise": lambda seed: rater_noise(RESULTS["ScoreTally"](seed)),
    "OuterContour": lambda seed: outer_contour([RESULTS["ScoreTally"](seed)] * 9),
    "MapFacts": lambda seed: fitted(seed).facts_,
    "Thresholds": lambda seed: fitted(seed).thresholds_,
    "Load": lambda seed: Load.of(RESULTS["ScoreTally"](seed)),
    "FittedCase": lambda seed: fitted(seed).fitted_on_[0] if seed else fitted(seed).fitted_on_[1],
    "Answers": lambda seed: Answers.of(TallyFit("mhr", 5, 0), RESULTS["ScoreTally"](seed)),
    "Departure": lambda seed: departures(seed).measured(None)[0],
    "MapErrors": lambda seed: departures(seed).jackknifed([(IDENTITY, 1), (fitted(0).map_, 2)]),
    "ExportGeometry": lambda seed: tt.ExportGeometry(
        (1, 1, 1 + seed), ((0, 1),) * 3, (1, 1, 1), (1, 1, 1)
    ),
}


def fitted_auto(seed):
    calibrator = tt.Calibrator(bins="auto")
    for name, tally in fitted(seed).tallies_.items():
        calibrator.add_tally(tally, name)
    return calibrator


@pytest.mark.parametrize("name", RESULTS)
def test_results_are_equal_to_their_like_alone(name):
    one, again, other = (RESULTS[name](seed) for seed in (0, 0, 1))
    assert type(one).__name__ == name
    assert one == again
    assert one == pickle.loads(pickle.dumps(one))
    assert one != other
    assert one != "something else"
    assert one not in (None, 0, other)


def classes():
    """Every dataclass and named tuple of the rooms that compute; torch may not be there."""
    for room in (calibration, metrics, ensemble, statistics):
        found = pkgutil.iter_modules(getattr(room, "__path__", ()), f"{room.__name__}.")
        names = [entry.name for entry in found if not entry.name.endswith(".torch_module")]
        for module in (room, *map(importlib.import_module, names)):
            for value in vars(module).values():
                own = isinstance(value, type) and value.__module__ == module.__name__
                if own and not value.__name__.startswith("_"):
                    fields = getattr(value, "__annotations__", {})
                    if "__dataclass_fields__" in vars(value) or hasattr(value, "_fields"):
                        yield value, fields


def test_no_class_that_holds_arrays_is_left_out():
    holding = {c for c, fields in classes() if any("NDArray" in str(f) for f in fields.values())}
    assert len(holding) >= 8
    assert all(issubclass(c, ByValue) for c in holding)
    assert {c.__name__ for c, _ in classes()} <= {*RESULTS, "CalibratorParameters", "MadeMap"}


def test_a_field_that_differs_makes_the_difference():
    metrics = tt.evaluate(*case())
    for change in (
        {"tdsc": np.nan},
        {"ece_per_rater": metrics.ece_per_rater[:2]},
        {"notes": (*metrics.notes, "x")},
        {"vascular_invasion": {**metrics.vascular_invasion, "PORTA": -1.0}},
        {"calibration": None},
    ):
        changed = dataclasses.replace(metrics, **change)
        assert changed != metrics
        assert changed == dataclasses.replace(metrics, **change)
    assert metrics != metrics.calibration.figures()
    with pytest.raises(TypeError, match="unhashable"):
        hash(metrics)
