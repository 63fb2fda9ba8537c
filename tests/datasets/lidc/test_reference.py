"""The whole way on real disagreement: LIDC nodules, fitted as sorting and SciPy would."""

import numpy as np
import pytest
from reference import fitted_map

import twintrack as tt
from twintrack.datasets import lidc

GRID = np.linspace(0, 1, 20_001)


@pytest.fixture(scope="module")
def cases():
    try:
        nodules = lidc.read_nodules(limit=60)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    return [lidc.simulate_score(lidc.rasterise(nodule)) for nodule in nodules]


def test_agrees_with_the_reference(cases):
    scores, raters = zip(*cases, strict=True)
    flat = np.concatenate([score.ravel() for score in scores])
    labels = np.concatenate([masks.reshape(3, -1) for masks in raters], axis=1)
    knots = fitted_map(flat, labels, 250)
    expected = np.interp(GRID, *knots)
    exact = tt.Calibrator(exact=True).fit(list(scores), list(raters))
    one_pass = tt.Calibrator().fit(list(scores), list(raters))
    assert np.abs(exact.transform(GRID) - expected).max() < 1e-6
    single = GRID.astype(np.float32)
    rounded = np.interp(single.astype(np.float64), *knots)
    assert np.abs(exact.transform(single) - rounded).max() < 1e-6
    assert np.abs(one_pass.transform(GRID) - expected).max() < 2e-3


def test_cases_in_any_order_give_the_same_tally(cases):
    orders = [np.arange(len(cases)), np.arange(len(cases))[::-1]]
    orders.append(np.random.default_rng(0).permutation(len(cases)))
    totals = []
    for order in orders:
        total = tt.ScoreTally(3)
        for index in order:
            total += tt.ScoreTally(3).update(*cases[index])
        totals.append(total)
    assert totals[0] == totals[1] == totals[2]
