"""Masks of the pipeline begin where the calibrator's cases say, as far as no network is needed."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models as tiny

from twintrack.calibration.calibrator import Calibrator
from twintrack.cli import main
from twintrack.errors import InputError
from twintrack.nnunet import Pipeline, grand_challenge
from twintrack.nnunet.predict_job import PredictJob
from twintrack.volumes import Volume, read_volume, write_volume


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A model folder as the container has it."""
    tiny.write_folder(tmp_path / "model" / "members" / "m")
    rng = np.random.default_rng(0)
    scores = rng.random(2000, np.float32)
    raters = [rng.random(2000) < scores**2 for _ in range(3)]
    Calibrator(bins=10).fit(scores, raters).save(tmp_path / "model" / "calibrator.json")
    return tmp_path / "model"


@pytest.mark.parametrize("rule", ["majority", "dice"])
def test_the_pipeline_takes_it_from_the_calibrator(place: Path, rule: Any) -> None:
    calibrator = Calibrator.load(place / "calibrator.json")
    known = calibrator.threshold(rule)
    assert known not in (0.5, calibrator.threshold({"majority": "dice"}.get(rule, "majority")))
    for given in (place / "calibrator.json", calibrator):
        pipeline = Pipeline([place / "members/m"], calibrator=given, threshold=rule, load=False)
        assert pipeline.threshold == known
        assert pickle.loads(pickle.dumps(pipeline)).threshold == known
        # Recorded as the number; another threshold is another result.
        job, other = (
            PredictJob(made, place / "out")
            for made in (pipeline, Pipeline([place / "members/m"], calibrator=given, load=False))
        )
        assert job.settings["threshold"] == job.options["threshold"] == known
        assert other.options == {**job.options, "threshold": 0.5}
    for without in (None, calibrator.map_):
        with pytest.raises(InputError, match=f"threshold is '{rule}'; .*a number"):
            Pipeline([place / "members/m"], calibrator=without, threshold=rule, load=False)


def test_predict_refuses_it_before_the_work(
    place: Path, tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    write_volume(tmp_path / "ct.nii.gz", np.ones((4, 4, 4), np.int16), np.eye(4))
    given = [
        *("predict", "-i", str(tmp_path / "ct.nii.gz"), "-o", str(tmp_path / "out")),
        *("--members", str(place / "members" / "m"), "--dry-run", "--threshold"),
    ]
    for threshold, model, told in (
        ("dice", (), "threshold is 'dice'; only a calibrator has it, and there is none"),
        ("often", (), "--threshold is 'often'; it must be majority, dice or a number"),
        ("2", (), "threshold is 2; a score lies in [0, 1]"),
        ("dice", ("-m", str(place / "calibrator.json")), "1 of 1 cases"),
        ("0.3", (), "1 of 1 cases"),
    ):
        with pytest.raises(SystemExit):
            main([*given, threshold, *model])
        assert told in " ".join("".join(capfd.readouterr()).split())


@pytest.mark.parametrize("rule", ["majority", "dice", 0.5])
def test_grand_challenge(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str | float
) -> None:
    score = np.random.default_rng(1).random((6, 5, 4), np.float32)

    class Said:
        """What a pipeline predicts, without networks."""

        def __init__(self, pipeline: Pipeline) -> None:
            self.notes = ()
            self.score = Volume(score, np.eye(4))
            self.mask = Volume((score > pipeline.threshold).view(np.uint8), np.eye(4))

    monkeypatch.setattr(Pipeline, "predict", lambda pipeline, _: Said(pipeline))
    folder = tmp_path / "input" / grand_challenge.INPUT
    folder.mkdir(parents=True)
    pytest.importorskip("SimpleITK")
    write_volume(folder / "ct.mha", np.ones(score.shape, np.int16), np.eye(4))
    (place / "settings.json").write_text(json.dumps({"threshold": rule, "load": False}))
    given = ["--input", str(tmp_path / "input"), "--output", str(tmp_path / "output")]
    given += ["--model", str(place), "-device", "cpu"]
    assert grand_challenge.main(given) == 0
    mask = read_volume(tmp_path / "output" / grand_challenge.SEGMENTATION)
    threshold = Calibrator.load(place / "calibrator.json").threshold(rule)  # type: ignore[arg-type]
    assert np.array_equal(mask.array, score > threshold)


@pytest.mark.parametrize("threshold", ["dice", "often", "0.5", 2, None, True])
def test_grand_challenge_names_the_setting(place: Path, capsys: Any, threshold: Any) -> None:
    (place / "calibrator.json").unlink()
    (place / "settings.json").write_text(json.dumps({"threshold": threshold, "load": False}))
    folder = place / grand_challenge.INPUT
    folder.mkdir(parents=True)
    (folder / "ct.mha").write_bytes(b"")
    given = ["--input", str(place), "--output", str(place), "--model", str(place)]
    assert grand_challenge.main(given) == 2
    told = capsys.readouterr().err
    assert "settings.json" in told
    assert "threshold" in told
