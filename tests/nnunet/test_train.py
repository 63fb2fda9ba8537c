"""``twintrack train``: the commands that nnU-Net gets, read by nnU-Net's own parsers."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nnunetv2")

from typer.testing import CliRunner

from twintrack.cli import command_app, main
from twintrack.nnunet import train, training_data
from twintrack.nnunet.training import Training

pytestmark = pytest.mark.nnunet


VALIDATED = [
    "checkpoint_final.pth",
    *(f"validation/{name}" for name in ("a.nii.gz", "a.npz", "b.nii.gz", "b.npz", "summary.json")),
]
PLANS = {
    "configurations": {
        name: {"architecture": {"arch_kwargs": {"n_conv_per_stage": []}}}
        for name in ("2d", "3d_lowres", "3d_fullres")
    }
}


class Commands:
    """Takes the place of nnU-Net's processes: parses what they get, and leaves what they leave."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.patch = monkeypatch
        self.order: list[str] = []
        self.planned: list[argparse.Namespace] = []
        self.preprocessed: list[argparse.Namespace] = []
        self.trained: list[tuple[argparse.Namespace, dict[str, str]]] = []
        self.leave = VALIDATED
        for module in (train, training_data):
            monkeypatch.setattr(module, "run_command", self.run)

    def parse(self, command: Sequence[str]) -> argparse.Namespace:
        import nnunetv2.experiment_planning.plan_and_preprocess_entrypoints as planning
        import nnunetv2.run.run_training as running

        given: list[argparse.Namespace] = []
        real = argparse.ArgumentParser.parse_known_args

        class Parsed(Exception):  # noqa: N818
            pass

        def parse(parser: argparse.ArgumentParser, *_: Any) -> Any:
            found, unknown = real(parser, list(command[1:]))
            assert not unknown
            given.append(found)
            raise Parsed

        module: Any = running if command[0] == "run_training_entry" else planning
        with self.patch.context() as patch:
            patch.setattr(argparse.ArgumentParser, "parse_known_args", parse)
            with pytest.raises(Parsed):
                getattr(module, command[0])()
        return given[0]

    def run(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        held: Sequence[int] = (),
    ) -> None:
        log.open("a").close()
        self.order.append(command[0])
        one = self.parse(command)
        preprocessed = Path(environment["nnUNet_preprocessed"])
        if command[0] == "run_training_entry":
            self.trained.append((one, dict(environment)))
            name = one.dataset_name_or_id
            model = (
                Path(environment["nnUNet_results"])
                / name
                / f"{one.tr}__{one.p}__{one.configuration}"
            )
            for left in self.leave:
                file = model / f"fold_{one.fold}" / left
                file.parent.mkdir(parents=True, exist_ok=True)
                file.touch()
            fingerprint = preprocessed / name / "dataset_fingerprint.json"
            if self.leave:
                (model / fingerprint.name).write_bytes(fingerprint.read_bytes())
            return
        raw = next(Path(environment["nnUNet_raw"]).glob(f"Dataset{one.d[0]}_*"))
        home = preprocessed / raw.name
        if command[0] == "preprocess_entry":
            self.preprocessed.append(one)
            return
        self.planned.append(one)
        home.mkdir(parents=True, exist_ok=True)
        fingerprint = home / "dataset_fingerprint.json"
        if one.clean or not fingerprint.exists():
            cases = sorted(file.name for file in raw.rglob("*.nii.gz"))
            fingerprint.write_text(json.dumps(cases))
        name = {"nnUNetPlannerResEncM": "nnUNetResEncUNetMPlans"}.get(one.pl, "nnUNetPlans")
        (home / f"{name}.json").write_text(json.dumps(PLANS))


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    return Commands(monkeypatch)


@pytest.fixture
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A trainer that is found in nnUNet_extTrainer alone."""
    folder = tmp_path / "trainers"
    folder.mkdir()
    (folder / "my_trainer.py").write_text(
        "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n"
        "class MyTrainer(nnUNetTrainer): pass\n"
    )
    monkeypatch.setenv("nnUNet_extTrainer", str(folder))
    return "MyTrainer"


def arguments(place: Path, *more: str) -> list[str]:
    for name in ("Dataset103_Pancreas", "Dataset104_PDAC"):
        (place / "raw" / name / "labelsTr").mkdir(parents=True, exist_ok=True)
    folders = [f"--{name}={place / name}" for name in ("raw", "preprocessed", "results")]
    usual = ["-d", "104", "--coarse", "103", "-k", "2", "-np", "3", "-device", "cpu"]
    return [*usual, *folders, *more]


def run(given: list[str]) -> Any:
    result = CliRunner().invoke(command_app("train"), given)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def test_commands_of_full_size_networks(commands: Commands, tmp_path: Path, trainer: str) -> None:
    given = arguments(tmp_path, "-tr", trainer, "-c", "3d_lowres", "-f", "0", "--npz")
    given += ["--seed", "7", "-pl", "nnUNetPlannerResEncM", "--plans", "nnUNetResEncUNetMPlans"]
    output = run(given).output
    assert [(one.d, one.pl, one.npfp, one.clean, one.no_pp) for one in commands.planned] == [
        ([103], "nnUNetPlannerResEncM", 3, True, True),
        ([104], "nnUNetPlannerResEncM", 3, True, True),
    ]
    assert [(one.d, one.plans_name, one.c, one.np) for one in commands.preprocessed] == [
        ([103], "nnUNetResEncUNetMPlans", ["3d_lowres"], [3]),
        ([104], "nnUNetResEncUNetMPlans", ["3d_lowres"], [3]),
    ]
    results = tmp_path / "results"
    homes = [results / "coarse", results / "member_7", results / "member_8"]
    names = ["Dataset103_Pancreas", "Dataset104_PDAC", "Dataset104_PDAC"]
    assert len(commands.trained) == 3
    for (one, environment), home, name, seed in zip(
        commands.trained, homes, names, ("0", "7", "8"), strict=True
    ):
        assert (one.dataset_name_or_id, one.configuration, one.fold) == (name, "3d_lowres", "0")
        assert (one.tr, one.p, one.device) == ("MyTrainer", "nnUNetResEncUNetMPlans", "cpu")
        assert one.npz
        assert not one.c
        assert not one.val
        assert environment["nnUNet_results"] == str(home)
        assert environment["TWINTRACK_SEED"] == seed
        assert int(environment["nnUNet_n_proc_DA"]) >= 1
        model = home / name / "MyTrainer__nnUNetResEncUNetMPlans__3d_lowres"
        assert str(model) in output.replace("\n", "")
    told = run(given).stderr  # all of it is done
    assert told.count("which is trained already (delete ") == 3
    assert (len(commands.planned), len(commands.trained)) == (2, 3)


def test_small_networks(commands: Commands, tmp_path: Path) -> None:
    run(arguments(tmp_path, "--small", "--epochs", "3"))
    assert [one.plans_name for one in commands.preprocessed] == ["twintrackSmallPlans"] * 2
    plans = json.loads(
        (tmp_path / "preprocessed/Dataset104_PDAC/twintrackSmallPlans.json").read_text()
    )
    assert plans["configurations"]["3d_fullres"]["patch_size"] == [32, 48, 48]
    for one, environment in commands.trained:
        assert (one.tr, one.p) == ("TwinTrackSmallTrainer", "twintrackSmallPlans")
        assert (environment["TWINTRACK_EPOCHS"], environment["TWINTRACK_ITERATIONS"]) == ("3", "25")


def test_cases_that_come_later_are_preprocessed_too(commands: Commands, tmp_path: Path) -> None:
    given = arguments(tmp_path, "-k", "1", "-f", "0")
    labels = tmp_path / "raw/Dataset104_PDAC/labelsTr"
    (labels / "a.nii.gz").touch()
    run(given)
    splits = tmp_path / "preprocessed/Dataset104_PDAC/splits_final.json"
    splits.write_text('[{"train": ["a"], "val": []}]')
    run(given)
    assert len(commands.planned) == 2
    (labels / "b.nii.gz").touch()
    with pytest.raises(
        ValueError, match=r"splits_final.json: .* 1 cases .* such as b, .*delete it"
    ):
        run(given)
    assert len(commands.planned) == 2
    splits.write_text('[{"train": ["a"], "val": ["b"]}]')
    assert run(given).stderr.count("trained already, before its data set changed (delete") == 1
    assert [one.d for one in commands.planned] == [[103], [104], [104]]
    fingerprint = tmp_path / "preprocessed/Dataset104_PDAC/dataset_fingerprint.json"
    assert json.loads(fingerprint.read_text()) == ["a.nii.gz", "b.nii.gz"]


@pytest.mark.parametrize("other_fold", [False, True])
def test_what_was_trained_before_is_not_mixed_with_other_data(
    commands: Commands, tmp_path: Path, other_fold: bool
) -> None:
    commands.leave = ["checkpoint_latest.pth"]
    given = arguments(tmp_path, "-k", "1")
    run(given)
    labels = tmp_path / "raw/Dataset104_PDAC/labelsTr"
    (labels / "a.nii.gz").touch()
    trained = len(commands.trained)
    given += ["-f", "1"] if other_fold else []
    with pytest.raises(
        ValueError, match=r"member_1.*: was trained before Dataset104_PDAC changed .* delete it"
    ):
        run(given)
    assert len(commands.trained) == trained  # not even the coarse network, which is as it was
    next((tmp_path / "results/member_1").rglob("checkpoint_latest.pth")).unlink()
    run(given)
    assert [one.c for one, _ in commands.trained[trained:]] == [not other_fold, False]


def test_networks_trained_without_probabilities_are_validated_for_them(
    commands: Commands, tmp_path: Path
) -> None:
    given = arguments(tmp_path, "-k", "1", "-f", "0")
    commands.leave = [name for name in VALIDATED if not name.endswith(".npz")]
    run(given)
    before = len(commands.trained)
    commands.leave = VALIDATED[:-1]  # stopped at the end: the last file may be damaged
    for _ in range(2):
        told = run([*given, "--npz"]).stderr
        assert "validating member 1 of 1 (seed 1), which is trained" in told
    assert [(one.val, one.npz) for one, _ in commands.trained[before:]] == [(True, True)] * 4
    commands.leave = VALIDATED
    run([*given, "--npz"])
    assert "keeping member 1" in run([*given, "--npz"]).stderr
    assert len(commands.trained) == before + 6


@pytest.mark.parametrize(
    ("left", "continued", "validated"),
    [
        (["checkpoint_latest.pth"], True, False),
        (["checkpoint_best.pth"], True, False),
        (["checkpoint_final.pth"], False, True),
        ([], False, False),
    ],
)
def test_interrupted_training_goes_on(
    commands: Commands, tmp_path: Path, left: list[str], continued: bool, validated: bool
) -> None:
    given = arguments(tmp_path, "-k", "1", "-f", "0", "--npz")
    commands.leave = left
    run(given)
    before = len(commands.trained)
    commands.leave = VALIDATED
    run(given)
    for one, _ in commands.trained[before:]:
        assert (one.c, one.val, one.npz) == (continued, validated, True)
    assert len(commands.trained) == 2 * before == 4


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["-tr", "NoTrainer"], "-tr is 'NoTrainer'; nnU-Net finds no such trainer"),
        (["-tr", "torch"], "-tr is 'torch'; nnU-Net finds no such trainer"),
        (["-pl", "NoPlanner"], "-pl is 'NoPlanner'; nnU-Net has no such planner"),
        (
            ["-pl", "nnUNetPlannerResEncL"],
            "--plans is 'nnUNetPlans', but planner nnUNetPlannerResEncL writes nnUNetResEncUNetLPl",
        ),
        (
            ["--plans", "MyPlans"],
            "--plans is 'MyPlans', but planner ExperimentPlanner writes nnUNetPlans",
        ),
    ],
)
def test_errors_come_before_any_work_with_status_2(
    commands: Commands, tmp_path: Path, capsys: Any, more: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", *arguments(tmp_path, *more)])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert commands.order == []


def test_missing_gpu_is_found_before_any_work(
    commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"-device is 'cuda', but torch finds no such device"):
        run(arguments(tmp_path, "-device", "cuda"))
    assert commands.order == []
    run(arguments(tmp_path))
    run(arguments(tmp_path, "-device", "cuda"))  # it is not needed: all are trained


def test_configuration_that_is_not_planned_is_refused_before_preprocessing(
    commands: Commands, tmp_path: Path
) -> None:
    with pytest.raises(
        ValueError, match=r"nnUNetPlans.json: has no configuration '4d'; -c may be 2d or 3d_lowres"
    ):
        run(arguments(tmp_path, "-c", "4d"))
    assert commands.order == ["plan_and_preprocess_entry"]


def test_all_is_preprocessed_before_anything_is_trained(commands: Commands, tmp_path: Path) -> None:
    run(arguments(tmp_path, "-k", "1"))
    data = ["plan_and_preprocess_entry", "preprocess_entry"]
    assert commands.order == [*data * 2, *["run_training_entry"] * 2]


HOLDER = """
import sys
from pathlib import Path
from twintrack.nnunet.locks import locked
with locked(Path(sys.argv[1]), "waits"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held_elsewhere(lock: Path) -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", HOLDER, str(lock)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_only_one_process_works_on_a_folder(commands: Commands, tmp_path: Path) -> None:
    given = arguments(tmp_path, "-k", "1")
    lock = tmp_path / "preprocessed/Dataset103_Pancreas/twintrack.lock"
    with held_elsewhere(lock), pytest.raises(BlockingIOError) as error:
        run(given)
    assert error.value.filename == str(lock)
    assert "another process plans and preprocesses this data set" in str(error.value)
    assert commands.order == []
    model = "nnUNetTrainer__nnUNetPlans__3d_fullres"
    lock = tmp_path / "results/member_1/Dataset104_PDAC" / model / "fold_all/twintrack.lock"
    with held_elsewhere(lock), pytest.raises(BlockingIOError, match="trains this network"):
        run(given)
    run(given)  # those who held them were killed
    assert [one.dataset_name_or_id[:10] for one, _ in commands.trained] == [
        "Dataset103",
        "Dataset104",
    ]


def test_data_set_that_another_process_has_just_preprocessed_is_not_done_again(
    commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = arguments(tmp_path, "-k", "1")
    real = training_data.locked

    @contextmanager
    def later(lock: Path, doing: str) -> Iterator[tuple[int, ...]]:
        monkeypatch.setattr(training_data, "locked", real)
        run(given)
        with real(lock, doing) as held:
            yield held

    monkeypatch.setattr(training_data, "locked", later)
    run(given)
    assert (len(commands.planned), len(commands.trained)) == (2, 2)


def test_what_nnunet_says_last_is_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "raw" / "Dataset104_PDAC").mkdir(parents=True)
    settings = Training(
        tmp_path / "raw", tmp_path / "preprocessed", tmp_path / "results", device="cpu", processes=1
    )
    settings.results.mkdir()
    with pytest.raises(
        RuntimeError, match=r"plan_and_preprocess_entry ended with status 1.*x\.log"
    ):
        training_data.TrainingData(104, settings).plan_and_preprocess(tmp_path / "x.log")
