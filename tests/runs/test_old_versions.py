"""Stores that earlier versions wrote: `stores/version-N.*`, which are never written again."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from twintrack import Calibrator
from twintrack.report import compare_methods, read_results
from twintrack.runs.earlier_results import check_results
from twintrack.runs.evaluate import EvaluateJob, stored_evaluation
from twintrack.runs.fit import fit_tallies, read_tallies
from twintrack.runs.merge import merge_stores
from twintrack.runs.store import open_stores

STORES = Path(__file__).parent / "stores"


@pytest.fixture
def stores(tmp_path):
    return Path(shutil.copytree(STORES, tmp_path / "stores"))


def test_tallies_of_version_1_are_refitted(stores):
    options, tallies = read_tallies(stores / "version-1.tallies")
    assert (options["region"], options["tumour"]) == ("all", [1])
    fitted = fit_tallies(Calibrator(bins=4), tallies, "all")
    assert (fitted.n_cases_, fitted.n_voxels_, fitted.n_raters_) == (2, 96, 2)
    # Scores are multiples of 1/8, so the map of that version is known to the last digit but few.
    np.testing.assert_allclose(fitted.X_thresholds_, [0, 5.5 / 32, 29 / 60, 109 / 124])
    np.testing.assert_allclose(fitted.y_thresholds_, [0, 5 / 24, 31 / 60, 55 / 62])


def test_evaluation_of_version_1_is_read(stores):
    (store,) = open_stores(stores / "version-1.evaluation", "evaluation")
    found = stored_evaluation(store)
    assert list(found.rows) == ["A", "B"]
    assert found.means()["tdsc"] == (pytest.approx(0.7980671437239077, abs=1e-15), 2)
    assert (found.total.voxels, found.total.raters, found.total.bins) == (96, 2, 50)
    assert found.total.predicted_voxels == 2 * 22.9375


def test_evaluation_of_version_1_is_merged_and_compared(stores, tmp_path):
    merged = merge_stores([stores / "version-1.evaluation"], tmp_path / "store", "evaluation")
    stored_evaluation(merged).write(tmp_path, "old")
    name, results = read_results(tmp_path)
    assert (name, results.cases) == ("old", ("A", "B"))
    assert results.provenance["twintrack"] == "0+unknown"  # which it was measured by
    # The same options are the same method, to be measured anew: by which formulas, nobody knows.
    assert check_results(tmp_path, "old", EvaluateJob().options) == []
    assert merged.options != EvaluateJob().options
    compare_methods({"old": results, "new": results}, resamples=20)
