"""What is found out of trained folders and settings before a network is loaded."""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models as tiny

from twintrack.calibration.calibrator import Calibrator
from twintrack.ensemble import ensemble_record
from twintrack.nnunet import Pipeline

UNLOADED: dict[str, Any] = {"load": False}


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    return [tiny.write_folder(tmp_path / str(seed)) for seed in range(3)]


def test_errors_of_folders(folders: list[Path], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        Pipeline([tmp_path / "nothing"], **UNLOADED)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError) as missing:
        Pipeline([tmp_path / "empty"], **UNLOADED)
    assert "dataset.json" in str(missing.value.filename)
    with pytest.raises(FileNotFoundError, match="no fold has best.pth.*checkpoint_final.pth"):
        Pipeline(folders, checkpoint="best.pth", **UNLOADED)
    with pytest.raises(FileNotFoundError, match="no such checkpoint") as missing:
        Pipeline(folders, folds=(3,), **UNLOADED)
    assert "fold_3" in str(missing.value.filename)
    for twice in ({"members": [folders[0], folders[0]]}, {"members": folders[:1], "folds": (0, 0)}):
        with pytest.raises(ValueError, match="fold 0 is named twice"):
            Pipeline(**twice, **UNLOADED)
    with pytest.raises(ValueError, match="members is empty"):
        Pipeline([], **UNLOADED)

    broken = tiny.write_folder(tmp_path / "broken")
    (broken / "plans.json").write_text("{")
    with pytest.raises(ValueError, match=r"plans.json: not a JSON file"):
        Pipeline([broken], **UNLOADED)
    other = tiny.write_folder(tmp_path / "other", labels={"background": 0, "tumour": 1})
    with pytest.raises(ValueError, match="other: labels .* differ from"):
        Pipeline([folders[0], other], **UNLOADED)
    two = tiny.write_folder(tmp_path / "two", channels=2)
    with pytest.raises(ValueError, match="two: channels .* differ from"):
        Pipeline([folders[0], two], **UNLOADED)
    with pytest.raises(ValueError, match="two: channels .* differ from"):
        Pipeline(folders, two, **UNLOADED)
    turned = tiny.write_folder(tmp_path / "turned", reader="NibabelIOWithReorient")
    for members, coarse in (([folders[0], turned], None), (folders, turned)):
        with pytest.raises(
            ValueError, match="turned: reads images otherwise .* only .*turned turn"
        ):
            Pipeline(members, coarse, **UNLOADED)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tumour": (3,)}, r"tumour is \(3,\); the members' channels are 1 to 2"),
        ({"tumour": (0,)}, "tumour is"),
        ({"tumour": ()}, "tumour is"),
        ({"within": (1, 3)}, r"within is \(1, 3\); the members' channels are 1 to 2"),
        ({"within": (1, 2, 2)}, r"within is \(1, 2, 2\); it names a channel twice"),
        ({"within": (2,)}, r"within is \(2,\) without all of tumour, \(1,\)"),
        ({"threshold": 1.5}, "threshold is 1.5"),
        ({"step": 0.0}, "step is 0.0"),
        ({"average": "votes"}, "average is 'votes'"),
        ({"coarse_spacing": (1, 2)}, "coarse_spacing is"),
        ({"coarse_spacing": (1, math.nan, 1)}, "coarse_spacing is"),
        ({"mirroring": "no"}, "mirroring is 'no'"),
        ({"folds": "all"}, "folds is 'all'; it is a sequence"),
    ],
)
def test_errors_of_arguments(folders: list[Path], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Pipeline(folders, **{**UNLOADED, **settings})


@pytest.mark.parametrize(
    "record",
    [
        ensemble_record(3, (1, 2), "probabilities"),
        ensemble_record(3, (1,), "logits"),
        ensemble_record(2, (1,), "probabilities"),
    ],
)
def test_calibrator_of_another_ensemble_is_refused(
    folders: list[Path], record: dict[str, Any]
) -> None:
    scores = np.linspace(0, 1, 100, dtype=np.float32)
    calibrator = Calibrator(bins=5, ensemble=record).fit(scores, [scores > 0.5])
    with pytest.raises(ValueError, match="the calibrator was fitted on scores of an ensemble with"):
        Pipeline(folders, calibrator=calibrator, **UNLOADED)


def test_a_pipeline_is_made_whatever_backend_is_forced(
    folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its checks compute nothing: on a CUDA device, all that is computed is there.
    scores = np.linspace(0, 1, 100, dtype=np.float32)
    calibrator = Calibrator(bins=5).fit(scores, [scores > 0.5])
    monkeypatch.setenv("TWINTRACK_BACKEND", "cuda")
    assert Pipeline(folders, calibrator=calibrator, **UNLOADED).size == len(folders)


@pytest.mark.parametrize("calibrator", [Calibrator(), {"x": [0, 1]}, lambda score: score])
def test_calibrators_without_a_map_are_refused(folders: list[Path], calibrator: Any) -> None:
    with pytest.raises(TypeError, match="calibrator is .*; it must have a map"):
        Pipeline(folders, calibrator=calibrator, **UNLOADED)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("dataset.json", {"labels": []}, r"labels must be an object of labels"),
        ("dataset.json", {"labels": {}}, r"labels must be an object of labels"),
        ("dataset.json", {"labels": {"background": 0, "tumour": "1"}}, r"labels must be an object"),
        ("dataset.json", {"channel_names": 3}, r"channel_names is 3; it must be an object"),
        ("dataset.json", {"channel_names": None}, r"channel_names must be an object with entries"),
        (
            "plans.json",
            {"image_reader_writer": 3},
            r"image_reader_writer is 3; it must be the name",
        ),
        ("plans.json", {"image_reader_writer": "MyIO"}, r"images are read by 'MyIO'; supported"),
    ],
)
def test_a_wrong_field_is_named(
    folders: list[Path], file: str, change: dict[str, Any], message: str
) -> None:
    path = folders[0] / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=rf"{file}: {message}"):
        Pipeline(folders, **UNLOADED)


def test_regions_need_their_numbers(tmp_path: Path) -> None:
    labels = {"background": 0, "pancreas": [1, 2], "tumour": 2}
    folder = tiny.write_folder(tmp_path / "m", labels=labels)
    with pytest.raises(
        ValueError, match=r"tumour .*is not given, .*: name .* 0 = pancreas, 1 = tum"
    ):
        Pipeline([folder], **UNLOADED)
    pipeline = Pipeline([folder], tumour=(1,), **UNLOADED)
    assert pipeline.regions
    assert pipeline.tumour_names == "1 = tumour"
    other = {"background": 0, "tumour": 2, "pancreas": [1, 2]}
    swapped = tiny.write_folder(tmp_path / "swapped", labels=other)
    with pytest.raises(ValueError, match=r"swapped: regions \('tumour', .* differ from"):
        Pipeline([folder, swapped], tumour=(1,), **UNLOADED)


def test_folds_are_numbered_or_all(tmp_path: Path) -> None:
    several = tiny.write_folder(tmp_path / "several", folds=(10, 2, "all"))
    assert Pipeline([several], **UNLOADED).members[0].folds == (2, 10)
    alone = tiny.write_folder(tmp_path / "alone", folds=("all",))
    assert Pipeline([alone], **UNLOADED).members[0].folds == ("all",)


def test_a_pipeline_that_was_sent_is_kept_with_its_networks(folders: list[Path]) -> None:
    sent = pickle.dumps(Pipeline(folders, **UNLOADED))
    kept = pickle.loads(sent)
    assert pickle.loads(sent) is kept
    assert kept.describe() == Pipeline(folders, **UNLOADED).describe()
    other = pickle.loads(pickle.dumps(Pipeline(folders[:2], **UNLOADED)))
    assert other.size == 2
    assert pickle.loads(sent) is not kept  # only the last one is kept: networks are large
