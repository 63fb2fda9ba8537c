"""Folders of predictions, as far as no network is needed."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models as tiny
from folders import touch

from twintrack import Calibrator
from twintrack.errors import InputError
from twintrack.nnunet import Pipeline
from twintrack.nnunet.image_cases import ImageCase, find_images
from twintrack.nnunet.predict_job import PredictJob, check_folder, predict_cohort
from twintrack.runs.job import Product
from twintrack.volumes import write_volume


class Steps(PredictJob):
    """Writes an image where the networks would write a score, and fails as it is told."""

    fails: tuple[str, ...] = ()

    def read(self, case: ImageCase) -> Any:
        if case.name in self.fails:
            raise InputError("is broken", file=case.images[0])
        return case.images[0]

    def compute(self, loaded: Any) -> Product:
        return Product(1, {"notes": [], "predicted_volume": 40.0, "voxel_volume": 2.0})

    def write(self, case: ImageCase, loaded: Any, store: Any) -> dict[str, tuple[str, Path]]:
        written = {}
        for role, place in self.places(case.name).items():
            store.staged(role + place.name).write_bytes(loaded.read_bytes() + role.encode())
            written[role] = role + place.name, place
        return written


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny.write_folder(tmp_path / "m")
    (tmp_path / "images").mkdir()
    for number in range(3):
        image = np.full((4, 4, 4), number, np.int16)
        write_volume(tmp_path / "images" / f"{number}.nii", image, np.eye(4))
    return tmp_path


def job(folder: Path, **settings: Any) -> Steps:
    options = {name: settings.pop(name) for name in ("rois", "dtype", "ending") if name in settings}
    return Steps(Pipeline([folder / "m"], load=False, **settings), folder / "out", **options)


def states(folder: Path, given: Steps, **how: Any) -> dict[str, str]:
    outcomes = predict_cohort(find_images(folder / "images"), given, **how)
    return {outcome.case: outcome.state for outcome in outcomes}


def test_only_what_is_not_finished_is_done(folder: Path, capsys: Any) -> None:
    done = dict.fromkeys("012", "done")
    assert states(folder, job(folder)) == done
    assert states(folder, job(folder), keep=True) == dict.fromkeys("012", "stored")
    (folder / "out" / "masks" / "1.nii.gz").write_bytes(b"half")
    (folder / "images" / "2.nii").write_bytes((folder / "images" / "0.nii").read_bytes())
    assert states(folder, job(folder), keep=True) == {**done, "0": "stored"}
    # Regions that are wanted and are not there; those that are there and not wanted stay.
    assert states(folder, job(folder, rois=True), keep=True) == done
    assert states(folder, job(folder), keep=True) == dict.fromkeys("012", "stored")
    assert len(list((folder / "out" / "rois").iterdir())) == 3
    assert states(folder, job(folder)) == done
    assert not list((folder / "out" / "rois").iterdir())


def test_predicted_volumes_have_the_intervals_of_the_band(folder: Path) -> None:
    rng = np.random.default_rng(0)
    score = rng.random((3, 200), np.float32)
    calibrator = Calibrator(bins=5).fit([*score], [[rng.random(200) < own] for own in score])
    given = job(folder, calibrator=calibrator)
    states(folder, given)
    assert not (folder / "out" / "volumes.csv").exists()
    calibrator.keep_band()
    assert states(folder, given, keep=True) == dict.fromkeys("012", "stored")
    lines = (folder / "out" / "volumes.csv").read_text().splitlines()
    limits = calibrator.volume_interval(40)
    row = f"40.0,{float(limits.low)!r},{float(limits.high)!r},80.0,"
    assert [line.startswith(f"{case},{row}") for case, line in enumerate(lines[1:])] == [True] * 3


def test_what_another_ensemble_made_goes_before_the_first_is_done(folder: Path) -> None:
    states(folder, job(folder, rois=True))
    other = job(folder, threshold=0.3)
    object.__setattr__(other, "fails", ("0", "2"))
    assert states(folder, other) == {"0": "failed", "1": "done", "2": "failed"}
    there = sorted(file.relative_to(folder / "out") for file in (folder / "out").rglob("*.gz"))
    assert there == [Path("1.nii.gz"), Path("masks/1.nii.gz")]


def test_folders_that_must_not_be_mixed(folder: Path) -> None:
    cases = find_images(folder / "images")
    states(folder, job(folder))
    changes = ({"threshold": 0.3}, {"dtype": "uint8"}, {"tumour": 2}, {"mirroring": False})
    for changed in changes:
        with pytest.raises(ValueError, match="prediction.json: .* were made with .*would mix them"):
            check_folder(cases, job(folder, **changed), keep=True)
        # All of these cases are made anew; scores of others would stay.
        assert check_folder(cases, job(folder, **changed), keep=False) is False
        with pytest.raises(ValueError, match="would mix them"):
            check_folder(cases[:2], job(folder, **changed), keep=False)
    (folder / "m" / "fold_0" / "checkpoint_final.pth").write_bytes(b"trained again")
    with pytest.raises(ValueError, match=r"checkpoint_final.pth: has changed since .*would mix"):
        check_folder(cases, job(folder), keep=True)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("name", ["stranger.nii.gz", "stranger.npz"])
def test_scores_that_nobody_vouches_for_get_no_record(folder: Path, name: str, keep: bool) -> None:
    # twintrack fit would take them for this ensemble's.
    touch(folder / "out", name)
    with pytest.raises(ValueError, match=rf"holds {name}, .* no prediction.json.*: use another"):
        states(folder, job(folder), keep=keep)
    assert [file.name for file in (folder / "out").iterdir()] == [name]


def test_an_image_is_never_overwritten_by_its_prediction(folder: Path) -> None:
    given = PredictJob(Pipeline([folder / "m"], load=False), folder / "images", ".nii")
    with pytest.raises(ValueError, match=r"0.nii: is an image; choose another folder"):
        predict_cohort(find_images(folder / "images"), given)
    masks = [ImageCase("a", (folder / "out" / "masks" / "a.nii.gz",))]
    with pytest.raises(ValueError, match=r"masks/a.nii.gz: is an image; choose another folder"):
        check_folder(masks, job(folder), keep=False)


def test_the_record_says_how_the_scores_are_made(folder: Path) -> None:
    states(folder, job(folder, within=(1, 2)))
    content = json.loads((folder / "out" / "prediction.json").read_text())
    assert content["tumour_names"] == "1 = tumour"
    assert content["ensemble"]["members"] == 1
    assert content["within"] == [1, 2]
    assert set(content["members"][0]["digests"]) == {
        *("dataset.json", "plans.json", "fold_0/checkpoint_final.pth")
    }


def test_formats(folder: Path) -> None:
    pipeline = Pipeline([folder / "m"], load=False)
    with pytest.raises(ValueError, match="no scale factor"):
        PredictJob(pipeline, folder, ".mha", "uint8")
    known = r"ending is '\.mhd'; it is one of \.nii\.gz, \.nii, \.mha"
    with pytest.raises(ValueError, match=known):
        PredictJob(pipeline, folder, ".mhd")


def test_what_is_sent_to_another_process_tells_nothing_there(folder: Path) -> None:
    told: list[str] = []
    given = PredictJob(Pipeline([folder / "m"], load=False), folder, tell=told.append)
    sent = pickle.loads(pickle.dumps(given))
    assert sent.tell is None
    assert sent.options == given.options
    assert sent.pipeline is pickle.loads(pickle.dumps(given)).pipeline
