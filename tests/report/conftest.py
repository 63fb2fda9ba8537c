"""Results of four methods on the same cases, with every irregularity that real ones have."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from twintrack.report import Example, MethodResults, Reliability

CASES = tuple(f"case_{i:02d}" for i in range(14))


def make_methods(cases=CASES, seed=0, vessels=True):
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(4, len(cases)))
    methods = {}
    for name, worse in {"None": 0.1, "Single-rater": 1.0, "Hard-label": 0.9, "MHR": 0.0}.items():
        noise = 0.05 * rng.normal(size=(4, len(cases)))
        values = {
            "tdsc": 0.6 - 0.2 * worse + 0.05 * common[0] + 0.1 * noise[0],
            "ece": 0.02 + 0.01 * worse + 0.001 * np.abs(common[1] + noise[1]),
            "crps": 4000 * np.exp(common[2] + worse + noise[2]),
            "brier": np.abs(0.01 * common[1] + 0.001 * noise[1]),
        }
        if vessels:
            values["vi_PORTA"] = np.maximum(0, 20 * common[3] + 10 * worse + noise[3])
            values["vi_PORTA"][5] = np.nan
        score = np.linspace(0.01, 0.99, 50)
        count = np.geomspace(1e8, 1e3, 50).astype(np.int64)
        count[47:] = 0
        score[47:] = np.nan
        methods[name] = MethodResults(
            cases,
            values,
            notes={cases[5]: "no PORTA in the label map"} if vessels else {},
            reliability=Reliability(count, score, np.clip(score ** (1 + worse), 0, 1)),
            provenance={
                "protocol": "official",
                "calibrator": {"target": name.lower(), "bins": 250},
            },
        )
    return methods


@pytest.fixture
def methods():
    return make_methods()


@pytest.fixture
def tiny(methods):
    """Two methods with one metric: a report of them is quickly drawn."""
    return {
        name: replace(
            methods[name], values={"tdsc": methods[name].values["tdsc"]}, reliability=None, notes={}
        )
        for name in ("None", "MHR")
    }


@pytest.fixture
def example():
    rows, columns = np.indices((30, 24))
    distance = np.hypot(rows - 14, columns - 12).astype(np.float32)
    return Example(
        "case_03",
        "axial, z = 7",
        mhr=np.clip(np.round(3 - distance / 4) / 3, 0, 1).astype(np.float32),
        score=(distance < 9).astype(np.float32),
        spacing=(0.8, 1.0),
        calibrated=np.clip(1.2 - distance / 10, 0, 1).astype(np.float32),
        background=(distance / 30).astype(np.float32),
        radiological=True,
    )
