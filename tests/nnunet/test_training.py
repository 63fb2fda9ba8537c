"""Training as far as neither nnU-Net nor torch is needed: settings, what is done, locks."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from twintrack.cli import main
from twintrack.nnunet import locks, train, training_data
from twintrack.nnunet.training import Small, Training

needs_nnunet = pytest.mark.skipif(
    importlib.util.find_spec("nnunetv2") is None, reason="nnunetv2 is not installed"
)


@pytest.fixture
def settings(tmp_path: Path) -> Training:
    (tmp_path / "raw" / "Dataset104_PDAC" / "labelsTr").mkdir(parents=True)
    (tmp_path / "results").mkdir()
    folders = (tmp_path / name for name in ("raw", "preprocessed", "results"))
    return Training(*folders, fold=0, device="cpu", small=Small())


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What nnU-Net is asked for; planning leaves plans."""
    asked: list[list[str]] = []

    def run(command: Sequence[str], environment: dict[str, str], *_: Any) -> None:
        asked.append(list(command))
        if command[0] == "plan_and_preprocess_entry":
            home = Path(environment["nnUNet_preprocessed"]) / "Dataset104_PDAC"
            kwargs = {"n_conv_per_stage": [2] * 6}
            configuration = {"architecture": {"arch_kwargs": kwargs}}
            plans = {"configurations": {"3d_fullres": configuration}}
            (home / "nnUNetPlans.json").write_text(json.dumps(plans))

    for module in (train, training_data):
        monkeypatch.setattr(module, "run_command", run)
    return asked


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["-f", "best"], "-f is 'best'"),
        (["-device", "tpu"], "-device is 'tpu'"),
        pytest.param(
            ["-d", "105"],
            "Dataset105_*: 0 data sets of this number; twintrack prepare makes them",
            marks=[pytest.mark.nnunet, needs_nnunet],  # which is looked for first
        ),
        (["--npz"], "--npz with -f all: "),
        (["--npz", "-f", "0", "--small"], "--npz with --small: "),
        (["--epochs", "9"], "--epochs is 9, but only small networks (--small) take it"),
        (["--iterations", "9"], "--iterations is 9, but only small networks"),
        (["--small", "-c", "2d"], "-c is '2d', but --small brings its own"),
    ],
)
def test_errors_come_before_any_work_with_status_2(
    settings: Training, tmp_path: Path, capsys: Any, more: list[str], message: str
) -> None:
    folders = [f"--{name}={tmp_path / name}" for name in ("raw", "preprocessed", "results")]
    with pytest.raises(SystemExit) as stop:
        main(["train", "-d", "104", "-device", "cpu", *folders, *more])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_small_networks_need_three_stages() -> None:
    # With two nnU-Net's loss is 0/0: see the weights of its deep supervision.
    with pytest.raises(ValueError, match="of 2 stages: three stages or more"):
        Small(features=(8, 16), patch=(16, 16, 16))


def test_data_are_preprocessed_once_and_again_when_they_change(
    settings: Training, commands: list[list[str]], tmp_path: Path
) -> None:
    def preprocess() -> list[str]:
        commands.clear()
        training_data.TrainingData(104, settings).plan_and_preprocess(tmp_path / "log")
        return [command[0] for command in commands]

    labels = settings.raw / "Dataset104_PDAC" / "labelsTr"
    home = settings.preprocessed / "Dataset104_PDAC"
    assert preprocess() == ["plan_and_preprocess_entry", "preprocess_entry"]
    plans = json.loads((home / "twintrackSmallPlans.json").read_text())
    assert plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["n_stages"] == 3
    assert preprocess() == []
    (labels.parent / "prepared").mkdir()
    (labels.parent / "prepared" / "options.json").touch()  # of twintrack prepare
    assert preprocess() == []
    (labels / "a.nii.gz").touch()
    splits = home / "splits_final.json"
    for content, message in (
        ('[{"train": ["b"], "val": []}]', "1 cases of Dataset104_PDAC .* such as a, .*delete it"),
        ('[{"train": "b"}]', r"Expected `array`, got `str`"),
    ):
        splits.write_text(content)
        with pytest.raises(ValueError, match=rf"splits_final.json: .*{message}"):
            preprocess()
    splits.write_text('[{"train": ["a"], "val": []}]')
    assert len(preprocess()) == 2


def test_a_training_goes_on_where_it_was(
    settings: Training, commands: list[list[str]], tmp_path: Path
) -> None:
    network = train.Network("Dataset104_PDAC", 1, settings, tmp_path / "results" / "member_1")
    network.train(tmp_path / "log")
    assert "--c" not in commands[-1]
    (network.fold / "checkpoint_best.pth").touch()
    network.train(tmp_path / "log")
    assert commands[-1][-1] == "--c"
    for folder, content in ((network.model, "before"), (settings.preprocessed, "after")):
        place = folder / ("" if folder == network.model else network.name)
        place.mkdir(parents=True, exist_ok=True)
        (place / train.FINGERPRINT).write_text(content)
    with pytest.raises(ValueError, match="was trained before Dataset104_PDAC changed"):
        network.train(tmp_path / "log")
    (network.fold / "checkpoint_final.pth").touch()
    network.train(tmp_path / "log")
    assert len(commands) == 2
    assert "trained already, before its data set changed" in network.doing("it")


def test_nnunet_keeps_the_lock_if_the_process_that_started_it_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    children = []

    def start(command: Sequence[str], pass_fds: Sequence[int], **_: Any) -> Any:
        code = "import sys; sys.stdin.read()"
        children.append(
            subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, pass_fds=pass_fds)
        )
        raise KeyboardInterrupt  # so that it is not waited for

    monkeypatch.setattr(subprocess, "run", start)
    settings = Training(tmp_path, tmp_path, tmp_path, device="cpu")
    network = train.Network("Dataset104_PDAC", 1, settings, tmp_path / "home")
    with pytest.raises(KeyboardInterrupt):
        network.train(tmp_path / "log")
    with children[0], pytest.raises(BlockingIOError, match="trains this network"):
        network.train(tmp_path / "log")
    with pytest.raises(KeyboardInterrupt):
        network.train(tmp_path / "log")
    for child in children:
        child.communicate()


def test_where_the_system_has_no_locks_the_file_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "fcntl", None)
    lock = tmp_path / "folder" / "lock"
    with (
        locks.locked(lock, "waits"),
        pytest.raises(BlockingIOError, match=r"another process waits; .*delete this file if there"),
        locks.locked(lock, "waits"),
    ):
        pass
    with locks.locked(lock, "waits"):
        pass
