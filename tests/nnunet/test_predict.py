"""``twintrack predict`` over a folder, and the Grand Challenge entry point."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from folders import content
from typer.testing import CliRunner

pytest.importorskip("nnunetv2")

import tiny_models as tiny
import torch

import twintrack
from twintrack.calibration.calibrator import Calibrator
from twintrack.cli import command_app, main
from twintrack.ensemble import ensemble_record
from twintrack.files import replacing
from twintrack.nnunet import Pipeline
from twintrack.nnunet.models import DeviceMemoryError, Model
from twintrack.volumes import read_volume, write_volume

pytestmark = pytest.mark.nnunet

AFFINE = np.array([[-1.5, 0, 0, 40], [0, -1.2, 0, 30], [0, 0, 2.5, -7], [0, 0, 0, 1.0]])
FAST = ["-device", "cpu", "--disable_tta"]


def ct(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.asfortranarray(rng.integers(-200, 300, (22, 20, 14)).astype(np.int16))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("place")
    for seed in range(2):
        tiny.write_model(root / "members" / f"m{seed}", seed)
    # In search of this one nnU-Net imports all of its own, and what warns of its dependencies.
    weights = root / "members/m1/fold_0/checkpoint_final.pth"
    saved = torch.load(weights, weights_only=False)
    torch.save({**saved, "trainer_name": "TwinTrackSmallTrainer"}, weights)
    tiny.write_model(root / "coarse", favour={1: 50.0}, spacing=(9.0, 4.5, 4.5))
    (root / "images").mkdir()
    for seed in range(3):
        write_volume(root / "images" / f"case{seed}_0000.nii.gz", ct(seed), AFFINE)
    scores = np.linspace(0, 1, 500, dtype=np.float32)
    record = ensemble_record(2, (1,), "probabilities")
    raters = [scores > 0.4, scores > 0.7, scores >= 0]  # m(0) = 1/3, to tell it from 0
    Calibrator(bins=10, ensemble=record).fit(scores, raters).save(root / "map.json")
    return root


def arguments(place: Path, out: Path, source: Path | None = None) -> list[str]:
    return [
        *("-i", str(source or place / "images"), "-o", str(out), "-m", str(place / "map.json")),
        *("--members", str(place / "members/m0"), "--members", str(place / "members/m1")),
        *("--coarse", str(place / "coarse"), "--save_roi", *FAST),
    ]


def predictions(folder: Path) -> dict[str, bytes]:
    """All but the store, whose records have the time at which a volume was written."""
    return {k: v for k, v in content(folder).items() if not k.startswith("store/")}


def run(given: list[str]) -> Any:
    result = CliRunner().invoke(command_app("predict"), given)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_folder_geometry_and_continuing(place: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    result = run(arguments(place, whole))
    assert result.exit_code == 0, result.output
    names = [f"{sub}case{k}.nii.gz" for sub in ("", "masks/", "rois/") for k in range(3)]
    made = predictions(whole)
    assert set(made) == {*names, "prediction.json"}
    assert len(list(whole.glob("store/predicted-*/cases/*.json"))) == 3
    pipeline = Pipeline(
        [place / "members/m0", place / "members/m1"],
        place / "coarse",
        place / "map.json",
        device="cpu",
        mirroring=False,
    )
    expected = pipeline.predict(place / "images/case1_0000.nii.gz")
    score = read_volume(whole / "case1.nii.gz")
    np.testing.assert_array_equal(score.array, expected.score.array)
    np.testing.assert_allclose(score.affine, AFFINE)
    mask = read_volume(whole / "masks/case1.nii.gz").array
    np.testing.assert_array_equal(mask, score.array > 0.5)
    assert read_volume(whole / "rois/case1.nii.gz").array.all()

    # Interrupted after the first case, and while the second was written: its score, which comes
    # last, is not there.
    (whole / "case1.nii.gz").unlink()
    (whole / "case2.nii.gz").unlink()
    (whole / "masks/case2.nii.gz").unlink()
    first = (whole / "case0.nii.gz").stat().st_mtime_ns
    result = run([*arguments(place, whole), "--continue_prediction"])
    assert result.exit_code == 0, result.output
    assert predictions(whole) == made
    assert (whole / "case0.nii.gz").stat().st_mtime_ns == first
    # Two parts give the same files as one. What there is to do is said without a network.
    for part in range(2):
        given = [*arguments(place, tmp_path / "parts"), "-num_parts", "2", "-part_id", str(part)]
        given.append("--continue_prediction")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("twintrack.nnunet.networks.load_model", None)
            assert f"{2 - part} of {2 - part} cases" in run([*given, "--dry-run"]).stdout
        run(given)
    assert predictions(tmp_path / "parts") == made
    assert "0 of 1 cases" in run([*given, "--dry-run"]).stdout
    with pytest.raises(ValueError, match="would mix them"):
        run([*arguments(place, whole), "--continue_prediction", "--threshold", "0.3"])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_stopped_midway_and_continued_gives_the_same_files(
    place: Path, tmp_path: Path, number: signal.Signals
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for seed in range(6):
        write_volume(images / f"case{seed}_0000.nii.gz", ct(seed), AFFINE)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert run(arguments(place, whole, images)).exit_code == 0
    made = predictions(whole)
    program = "from twintrack.cli import main; main()"
    command = [sys.executable, "-c", program, "predict", *arguments(place, stopped, images)]
    source = Path(twintrack.__file__).parents[1]
    told = tmp_path / "told"
    with told.open("w") as file:
        process = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": str(source)},
            stdout=subprocess.DEVNULL,
            stderr=file,
        )
    try:
        while process.poll() is None and not (stopped / "case0.nii.gz").is_file():
            time.sleep(0.002)
        process.send_signal(number)
        process.wait(60)
    finally:
        process.kill()
    finished = {file.name for file in stopped.glob("case*")}
    assert process.returncode in (-number, 128 + number)
    assert "Warning" not in told.read_text()
    assert {"case0.nii.gz"} <= finished < {f"case{seed}.nii.gz" for seed in range(6)}
    for name in finished:  # what is there is whole
        assert (stopped / name).read_bytes() == made[name]
    # What a process leaves that is killed while it writes its record.
    with replacing(tmp_path / "prediction.json") as temporary:
        temporary.touch()
        begun = temporary.name.replace(f"-{os.getpid():x}-", f"-{process.pid:x}-")
    (stopped / begun).write_bytes(b"half")
    result = run([*arguments(place, stopped, images), "--continue_prediction"])
    assert result.exit_code == 0, result.output
    assert predictions(stopped) == made
    assert not list(stopped.glob("store/*/staging-*"))


def test_a_folder_never_mixes_two_ensembles(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = arguments(place, out)
    assert run(given).exit_code == 0
    made = predictions(out)
    # Another threshold, without --continue_prediction, stopped before the first case is done.
    images = tmp_path / "images"
    images.mkdir()
    for seed in range(3):
        (images / f"case{seed}_0000.nii.gz").write_bytes(b"broken")
    other = [*arguments(place, out, images), "--threshold", "0.3", "--no_save_roi"]
    assert run(other).exit_code == 1
    assert set(predictions(out)) == {"prediction.json"}
    # Nothing can be mixed with what is not there.
    assert run([*other, "--threshold", "0.4", "--continue_prediction"]).exit_code == 1
    # Files of which nobody knows how they were made are not kept.
    for name, data in made.items():
        (out / name).write_bytes(data[:-1])
    (out / "prediction.json").unlink()
    assert run([*given, "--continue_prediction"]).exit_code == 0
    assert predictions(out) == made
    (out / "prediction.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"prediction.json: not a record of twintrack predict"):
        run([*given, "--continue_prediction"])


@pytest.mark.parametrize("name", ["stranger.nii.gz", "stranger.npz"])
def test_scores_that_nobody_vouches_for_get_no_record(
    place: Path, tmp_path: Path, name: str
) -> None:
    # twintrack fit would take them for this ensemble's.
    (tmp_path / name).write_bytes(b"")
    for extra in ([], ["--continue_prediction"]):
        with pytest.raises(
            ValueError, match=rf"holds {name}, .* no prediction.json.*: use another"
        ):
            run([*arguments(place, tmp_path), *extra])
    assert predictions(tmp_path) == {name: b""}


@pytest.fixture
def copied(place: Path, tmp_path: Path) -> Path:
    """Two cases, two networks, and their predictions in ``out``; all of it may be changed."""
    for name in ("members/m0", "coarse", "images"):
        shutil.copytree(place / name, tmp_path / name)
    (tmp_path / "images/case2_0000.nii.gz").unlink()
    run(networks(tmp_path))
    return tmp_path


def networks(folder: Path) -> list[str]:
    models = ["--members", str(folder / "members/m0"), "--coarse", str(folder / "coarse")]
    return ["-i", str(folder / "images"), "-o", str(folder / "out"), *models, *FAST]


def go_on(given: list[str]) -> tuple[dict[str, str], list[str]]:
    """Return what became of the cases, and what was warned of."""
    result = run([*given, "--continue_prediction", "--log-json"])
    assert result.exit_code == 0
    events = [json.loads(line) for line in result.stderr.splitlines()]
    states = {event["case"]: event["state"] for event in events if event["event"] == "case"}
    return states, [event["message"] for event in events if event["event"] == "warning"]


def test_an_image_that_has_changed_is_predicted_again(copied: Path) -> None:
    made = predictions(copied / "out")
    first, second = (copied / f"images/case{k}_0000.nii.gz" for k in range(2))
    os.utime(first, ns=(1, 1))  # as a copy has another time
    second.write_bytes((copied / "images/case0_0000.nii.gz").read_bytes())
    states, warnings = go_on(networks(copied))
    assert states == {"case0": "stored", "case1": "done"}
    assert len(warnings) == 1
    assert "case1_0000.nii.gz: has changed since it was predicted" in warnings[0]
    found = predictions(copied / "out")
    assert found["case0.nii.gz"] == made["case0.nii.gz"] == found["case1.nii.gz"]
    assert found["case1.nii.gz"] != made["case1.nii.gz"]
    assert go_on(networks(copied)) == ({"case0": "stored", "case1": "stored"}, [])


@pytest.mark.parametrize("model", ["members/m0", "coarse"])
@pytest.mark.parametrize("file", ["fold_0/checkpoint_final.pth", "plans.json"])
def test_weights_that_have_changed_are_refused(copied: Path, model: str, file: str) -> None:
    made = predictions(copied / "out")
    tiny.write_model(copied / "other", 7, favour={1: 50.0}, patch=(16, 16, 32))
    shutil.copyfile(copied / "other" / file, copied / model / file)
    with pytest.raises(ValueError, match=rf"{model}/{file}: has changed since .*would mix them"):
        run([*networks(copied), "--continue_prediction"])
    # Of other cases, too, no prediction stays with a record that is not its own.
    (copied / "images/case0_0000.nii.gz").unlink()
    with pytest.raises(ValueError, match=rf"{model}/{file}: has changed since .*would mix them"):
        run(networks(copied))
    assert predictions(copied / "out") == made


def test_another_number_of_members_is_said_not_taken_for_another_training(copied: Path) -> None:
    tiny.write_model(copied / "members/m1", 7, patch=(16, 16, 32))
    second = ["--members", str(copied / "members/m1")]
    with pytest.raises(ValueError, match=r"made with ensemble = .*'members': 1.*'members': 2"):
        run([*networks(copied), *second, "--continue_prediction"])


def test_moved_networks_are_accepted(copied: Path) -> None:
    stored = {"case0": "stored", "case1": "stored"}
    (copied / "members/m0").rename(copied / "members/moved")
    given = [part.replace("members/m0", "members/moved") for part in networks(copied)]
    assert go_on(given) == (stored, [])
    assert "moved" in (copied / "out/prediction.json").read_text()


def test_predictions_without_a_record_of_their_images_are_made_again(copied: Path) -> None:
    made = predictions(copied / "out")
    (record,) = copied.glob("out/store/*/cases/case1.json")
    record.unlink()
    assert go_on(networks(copied)) == ({"case0": "stored", "case1": "done"}, [])
    assert predictions(copied / "out") == made


def test_tumour_is_named(place: Path, tmp_path: Path) -> None:
    one = ["-i", str(place / "images/case0_0000.nii.gz")]
    made = run([*arguments(place, tmp_path / "classes"), *one])
    assert "1 = tumour" in made.stdout
    record = tmp_path / "classes/prediction.json"
    assert json.loads(record.read_text())["tumour_names"] == "1 = tumour"
    labels = {"background": 0, "lesion and pancreas": [1, 2], "lesion": 2}
    regions = tiny.write_model(tmp_path / "regions", labels=labels)
    given = [*one, "-o", str(tmp_path / "out"), "--members", str(regions), *FAST]
    with pytest.raises(
        ValueError, match="tumour .*is not given.* 0 = lesion and pancreas, 1 = lesio"
    ):
        run(given)
    assert "0 = lesion and pancreas, 1 = lesion" in run([*given, "--tumour", "0,1"]).stdout


def test_an_image_is_never_overwritten_by_its_prediction(place: Path, tmp_path: Path) -> None:
    image = tmp_path / "a.nii.gz"
    write_volume(image, ct(0), AFFINE)
    before = image.read_bytes()
    with pytest.raises(ValueError, match=r"a.nii.gz: is an image; choose another folder"):
        run(arguments(place, tmp_path, image))
    assert predictions(tmp_path) == {"a.nii.gz": before}


def test_calibrating_afterwards_is_the_same_as_in_the_pipeline(
    place: Path, tmp_path: Path, capsys: Any
) -> None:
    # nnU-Net crops the rim of 0, so that less than the region is predicted.
    image = ct(0)
    image[:3] = image[:, -4:] = 0
    (tmp_path / "images").mkdir()
    write_volume(tmp_path / "images" / "a.nii.gz", image, AFFINE)
    given = arguments(place, tmp_path / "both", tmp_path / "images")
    at = given.index("-m")
    plain = [*given[:at], *given[at + 2 :], "-o", str(tmp_path / "plain")]
    assert run(given).exit_code == run(plain).exit_code == 0
    source = ["-i", str(tmp_path / "plain" / "a.nii.gz"), "-m", str(place / "map.json")]
    with pytest.raises(SystemExit) as ended:
        main(["apply", *source, "-o", str(tmp_path / "after"), "-q"])
    assert ended.value.code == 0
    both = read_volume(tmp_path / "both" / "a.nii.gz").array
    np.testing.assert_array_equal(read_volume(tmp_path / "after" / "a.nii.gz").array, both)
    roi = read_volume(tmp_path / "both" / "rois" / "a.nii.gz").array
    assert not both[roi == 0].any()
    assert not roi[:3].any()
    assert (both[roi == 1] > 0).all()  # m(0) is above 0: a zero inside would be mapped, too
    # A map that is fitted to these scores knows how they were made, and no other ensemble takes it.
    rater = tmp_path / "rater.nii.gz"
    write_volume(rater, (both > np.median(both[roi == 1])).astype(np.uint8), AFFINE)
    (tmp_path / "cohort.csv").write_text("case,score,rater_1\na,plain/a.nii.gz,rater.nii.gz\n")
    fitted = tmp_path / "fitted.json"
    with pytest.raises(SystemExit) as ended:
        main(["fit", "-i", str(tmp_path / "cohort.csv"), "-o", str(fitted), "--bins", "5", "-q"])
    assert ended.value.code == 0
    capsys.readouterr()
    models = [place / "members/m0", place / "members/m1"]
    pipeline = Pipeline(models, calibrator=fitted, device="cpu")
    assert pipeline.calibrator.provenance_["ensemble"] == pipeline.ensemble
    with pytest.raises(ValueError, match="with members = 2, but this one has members = 1"):
        Pipeline(models[:1], calibrator=fitted, device="cpu")
    with pytest.raises(ValueError, match=r"with tumour = \[1\], but this one has tumour = \[2\]"):
        Pipeline(models, calibrator=fitted, device="cpu", tumour=(2,))


def test_corrupt_case_is_reported_and_the_rest_done(place: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for seed in (0, 2):
        write_volume(images / f"case{seed}.mha", ct(seed), AFFINE)
    (images / "case1.nii.gz").write_bytes(b"\x1f\x8b broken")
    four = nib.Nifti1Image(np.zeros((8, 8, 8, 2), np.int16), np.eye(4))
    nib.save(four, images / "case3.nii.gz")
    out = tmp_path / "out"
    result = run([*arguments(place, out, images), "--file_ending", ".mha", "--log-json"])
    assert result.exit_code == 1
    events = [json.loads(line) for line in result.stderr.splitlines() if line.startswith("{")]
    states = {event["case"]: event["state"] for event in events if event["event"] == "case"}
    assert states == {"case0": "done", "case1": "failed", "case2": "done", "case3": "failed"}
    first, second = (event["message"] for event in events if event.get("state") == "failed")
    assert "case1.nii.gz" in first
    assert "case3.nii.gz" in second
    assert "(8, 8, 8, 2)" in second
    assert sorted(file.name for file in out.glob("*.mha")) == ["case0.mha", "case2.mha"]
    np.testing.assert_allclose(read_volume(out / "case0.mha").affine, AFFINE, atol=1e-6)
    assert not list(out.rglob(".*"))


def test_what_a_full_device_needs_is_said(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Any:
        raise DeviceMemoryError("m0: a patch of (16, 16, 16) voxels does not fit; use -device cpu")

    monkeypatch.setattr(Model, "logits", full)
    one = arguments(place, tmp_path / "out", place / "images/case0_0000.nii.gz")
    coarse = one.index("--coarse")
    for given in (one, one[:coarse] + one[coarse + 2 :]):
        result = run([*given, "-q"])
        assert result.exit_code == 1
        assert "does not fit; use -device cpu" in " ".join(result.stderr.split())


def test_errors_end_with_status_2(place: Path, tmp_path: Path, capsys: Any) -> None:
    for extra, message in (
        (["-f", "7"], "fold_7"),
        (["--tumour", "9"], "tumour is (9,)"),
        (["--average", "logits"], "the calibrator was fitted on scores of an ensemble"),
        (["--margins", "1,2"], "--margins is '1,2'"),
        (["-i", str(tmp_path / "nothing")], "nothing"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["predict", *arguments(place, tmp_path / "out"), *extra])
        assert stop.value.code == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.dask
@pytest.mark.filterwarnings("default")  # what the library warns of is not ours to mend
def test_two_processes_give_the_same_bytes(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    here, there = tmp_path / "here", tmp_path / "there"
    assert run(arguments(place, here)).exit_code == 0
    # The process that leads them loads no network.
    monkeypatch.setattr("twintrack.nnunet.networks.load_model", None)
    result = run([*arguments(place, there), "--workers", "2"])
    assert result.exit_code == 0, result.output
    assert "mean of probabilities, on the workers" in result.stdout
    assert predictions(there) == predictions(here)
    assert len(list(there.glob("store/*/cases/*.json"))) == 3
