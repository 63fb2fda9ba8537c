"""What must not have changed for a folder of predictions to be continued; no network is needed."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from twintrack.nnunet.prediction_record import check_same, write_json

FILES = ("plans.json", "fold_0/checkpoint_final.pth")


def network(name: str) -> dict[str, Any]:
    return {
        "folder": f"results/{name}",
        "folds": [0],
        "checkpoint": "checkpoint_final.pth",
        "digests": {file: f"{name} {file}" for file in FILES},
    }


SETTINGS: dict[str, Any] = {
    "twintrack": "0.1.0",
    "ensemble": {"members": 2, "tumour": [1], "average": "probabilities", "regions": False},
    "tumour_names": "1 = tumour",
    "members": [network("m0"), network("m1")],
    "coarse": network("coarse"),
    "coarse_spacing": [4.5, 4.5, 9.0],
    "organ": None,
    "within": None,
    "roi": {"margins": [100.0, 50.0, 15.0], "components": "all"},
    "threshold": 0.5,
    "step": 0.5,
    "mirroring": True,
    "calibrator": {"x": [0.0, 1.0], "y": [0.0, 1.0]},
    "dtype": "float32",
}
FOLDERS = [Path("m0"), Path("m1"), Path("coarse")]


@pytest.fixture
def record(tmp_path: Path) -> Path:
    write_json(tmp_path / "prediction.json", SETTINGS)
    return tmp_path / "prediction.json"


CHANGES = {
    "ensemble": {**SETTINGS["ensemble"], "average": "logits"},
    "members": SETTINGS["members"][:1],
    "coarse": None,
    "coarse_spacing": None,
    "organ": [1],
    "within": [1, 2],
    "roi": {**SETTINGS["roi"], "margins": [100.0, 50.0, 16.0]},
    "threshold": 0.3,
    "step": 0.6,
    "mirroring": False,
    "calibrator": None,
    "dtype": "uint8",
}


@pytest.mark.parametrize("name", CHANGES)
def test_everything_that_decides_a_score_is_compared(record: Path, name: str) -> None:
    check_same(record, SETTINGS, FOLDERS)
    named = "another map" if name == "calibrator" else f"{name} = "
    with pytest.raises(ValueError, match=f"were made with {named}"):
        check_same(record, {**SETTINGS, name: CHANGES[name]}, FOLDERS)


def test_what_is_for_people_decides_nothing(record: Path) -> None:
    check_same(record, {**SETTINGS, "twintrack": "0.2.0", "tumour_names": "1 = PDAC"}, FOLDERS)
    moved = copy.deepcopy(SETTINGS)
    moved["members"][1]["folder"] = "elsewhere"
    check_same(record, moved, FOLDERS)


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("file", FILES)
def test_a_changed_file_of_any_network_is_named(record: Path, number: int, file: str) -> None:
    trained = copy.deepcopy(SETTINGS)
    [*trained["members"], trained["coarse"]][number]["digests"][file] = "another"
    with pytest.raises(ValueError, match=rf"{FOLDERS[number] / file}: has changed since"):
        check_same(record, trained, FOLDERS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], "twintrack predict"),
        ({**SETTINGS, "members": [{}]}, "members"),
        ({**SETTINGS, "coarse": {"digests": {"plans.json": 3}}}, "coarse"),
        ({"ensemble": {}, "calibrator": None}, "members"),  # of twintrack apply
    ],
)
def test_what_is_no_record_is_said(record: Path, content: Any, message: str) -> None:
    record.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"prediction.json: not a record .*{message}") as error:
        check_same(record, SETTINGS, FOLDERS)
    assert "delete it, and all is predicted again" in str(error.value)
