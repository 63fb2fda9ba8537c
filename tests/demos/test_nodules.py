import json

import numpy as np
import pytest

import twintrack as tt
from twintrack.calibration.fitted_on import patients_among
from twintrack.datasets import lidc

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    try:
        lidc.find_database()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    from twintrack.demos.nodules import run_demo

    out = tmp_path_factory.mktemp("demo")
    return out, run_demo(out, limit=16, resamples=50)


def test_calibration_helps_and_everything_is_written(result):
    from twintrack.demos.nodules import METHODS, MHR

    out, found = result
    assert found.fit_cases + found.test_cases == 16
    none = found.pooled["None (uncalibrated)"]
    for name in METHODS:
        figures = found.pooled[name]
        assert figures["brier"] <= none["brier"]
        assert abs(figures["volume_ratio"] - 1) <= abs(none["volume_ratio"] - 1)
    for file in ("report.html", "table1.md", "figures/map.png", "figures/reliability.png"):
        assert (out / file).stat().st_size > 0
    assert len(list((out / "volumes").glob("*_calibrated.nii.gz"))) == found.test_cases
    stored = tt.load_calibrator(out / "calibrators" / "mhr.json")
    assert stored.map_ == found.calibrators[MHR].map_
    # Nodules of one patient are not independent: patients are drawn.
    patients = {case.rpartition("_nodule-")[0] for case in found.comparison.cases}
    assert found.comparison.independent == len(patients) < found.test_cases
    assert patients_among(stored.fitted_on_) < found.fit_cases
    assert json.loads((out / "calibrators" / "mhr.json").read_text())["region"] == "box"


def test_pooled_figures_by_hand(result):
    from twintrack.demos.nodules import MHR
    from twintrack.volumes import read_score

    out, found = result
    squares, volumes, voxels = 0.0, np.zeros(2), 0
    for file in sorted((out / "volumes").glob("*_calibrated.nii.gz")):
        calibrated = read_score(file).array.astype(np.float64)
        mhr = read_score(file.with_name(file.name.replace("calibrated", "mhr"))).array
        squares += float(((calibrated - mhr) ** 2).sum())
        volumes += [calibrated.sum(), mhr.sum(dtype=np.float64)]
        voxels += calibrated.size
    assert found.pooled[MHR]["brier"] == pytest.approx(squares / voxels, rel=1e-5)
    assert found.pooled[MHR]["volume_ratio"] == pytest.approx(volumes[0] / volumes[1], rel=1e-5)


def test_two_runs_are_the_same(result, tmp_path):
    from twintrack.demos.nodules import run_demo

    out, _ = result
    run_demo(tmp_path, limit=16, resamples=50)
    for file in ("report.html", "table2.csv", "calibrators/mhr.json", "figures/map.svg"):
        assert (tmp_path / file).read_bytes() == (out / file).read_bytes()
