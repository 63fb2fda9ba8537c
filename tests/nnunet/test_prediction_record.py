"""What must not have changed for a folder of predictions to be continued; no network is needed."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest

from twintrack.nnunet.prediction_record import changed_image, check_same, stamp_images, write_json

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
    # Older records do not have them: then the networks are told by their folders.
    old = copy.deepcopy(SETTINGS)
    for each in (*old["members"], old["coarse"]):
        del each["digests"]
    write_json(record, old)
    check_same(record, trained, FOLDERS)
    trained["members"][1]["folder"] = "elsewhere"
    with pytest.raises(ValueError, match="were made with members = "):
        check_same(record, trained, FOLDERS)


def test_a_changed_image_is_found_and_a_touched_one_is_not(tmp_path: Path) -> None:
    images = [tmp_path / f"image_{k}.nii.gz" for k in range(2)]
    for k, image in enumerate(images):
        image.write_bytes(bytes([k]) * 100)
    record = tmp_path / "A.json"
    write_json(record, stamp_images(images))
    assert changed_image(record, images) is None
    os.utime(images[0])
    assert changed_image(record, images) is None
    assert changed_image(record, images[::-1]) == images[1]  # channels that change places
    images[1].write_bytes(b"2" * 100)
    assert changed_image(record, images) == images[1]
    record.write_text(json.dumps({"image_0": {}}))
    assert changed_image(record, images) == images[0]


def test_voxels_in_another_file_than_the_image_are_stamped(tmp_path):
    image, voxels, kept = (tmp_path / name for name in ("A.mha", "A.raw", "A.json"))
    image.write_text(
        "ObjectType = Image\nNDims = 3\nDimSize = 1 1 3\nElementType = MET_UCHAR\n"
        "ElementDataFile = A.raw\n"
    )
    voxels.write_bytes(b"one")
    stamped = stamp_images([image])
    assert set(stamped) == {"image_0", "image_0.raw"}
    kept.write_text(json.dumps(stamped))
    assert changed_image(kept, [image]) is None
    voxels.write_bytes(b"two")
    assert changed_image(kept, [image]) == voxels
    voxels.unlink()
    assert changed_image(kept, [image]) == image
    kept.write_text("[]")
    assert changed_image(kept, [image]) == image
