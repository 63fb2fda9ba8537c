"""``twintrack train``: the commands that nnU-Net gets, read by nnU-Net's own parsers."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nnunetv2")

from typer.testing import CliRunner

from twintrack.cli import command_app, main
from twintrack.nnunet import train as training

pytestmark = pytest.mark.nnunet


VALIDATED = [
    "checkpoint_final.pth",
    *(f"validation/{name}" for name in ("a.nii.gz", "a.npz", "b.nii.gz", "b.npz", "summary.json")),
]


class Commands:
    """Takes the place of nnU-Net's processes: parses what they get, and leaves what they leave."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.patch = monkeypatch
        self.planned: list[argparse.Namespace] = []
        self.trained: list[tuple[argparse.Namespace, dict[str, str]]] = []
        self.leave = VALIDATED
        monkeypatch.setattr(training, "_run", self.run)

    def run(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        import nnunetv2.experiment_planning.plan_and_preprocess_entrypoints as planning
        import nnunetv2.run.run_training as running

        log.open("a").close()
        given: list[argparse.Namespace] = []
        real = argparse.ArgumentParser.parse_args

        class Parsed(Exception):  # noqa: N818
            pass

        def parse(parser: argparse.ArgumentParser) -> Any:
            given.append(real(parser, list(command[1:])))
            raise Parsed

        module: Any = running if command[0] == "run_training_entry" else planning
        with self.patch.context() as patch:
            patch.setattr(argparse.ArgumentParser, "parse_args", parse)
            with pytest.raises(Parsed):
                getattr(module, command[0])()
        if module is planning:
            self.planned.append(given[0])
            name = next(Path(environment["nnUNet_raw"]).glob(f"Dataset{given[0].d[0]}_*")).name
            (Path(environment["nnUNet_preprocessed"]) / name).mkdir(parents=True, exist_ok=True)
            return
        one = given[0]
        self.trained.append((one, dict(environment)))
        model = f"{one.tr}__{one.p}__{one.configuration}"
        fold = Path(environment["nnUNet_results"]) / one.dataset_name_or_id / model
        for name in self.leave:
            file = fold / f"fold_{one.fold}" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    return Commands(monkeypatch)


def arguments(place: Path, *more: str) -> list[str]:
    for name in ("Dataset103_Pancreas", "Dataset104_PDAC"):
        (place / "raw" / name).mkdir(parents=True, exist_ok=True)
    folders = [f"--{name}={place / name}" for name in ("raw", "preprocessed", "results")]
    return ["-d", "104", "--coarse", "103", "-k", "2", "-np", "3", *folders, *more]


def run(given: list[str]) -> Any:
    result = CliRunner().invoke(command_app("train"), given)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def test_commands_of_full_size_networks(commands: Commands, tmp_path: Path) -> None:
    given = arguments(tmp_path, "-tr", "MyTrainer", "-c", "3d_lowres", "-f", "0", "--npz")
    output = run([*given, "--seed", "7", "-device", "cpu"]).output
    assert [(one.d, one.c, one.np, one.npfp) for one in commands.planned] == [
        ([103], ["3d_lowres"], [3], 3),
        ([104], ["3d_lowres"], [3], 3),
    ]
    results = tmp_path / "results"
    homes = [results / "coarse", results / "member_7", results / "member_8"]
    names = ["Dataset103_Pancreas", "Dataset104_PDAC", "Dataset104_PDAC"]
    assert len(commands.trained) == 3
    for (one, environment), home, name, seed in zip(
        commands.trained, homes, names, ("0", "7", "8"), strict=True
    ):
        assert (one.dataset_name_or_id, one.configuration, one.fold) == (name, "3d_lowres", "0")
        assert (one.tr, one.p, one.device) == ("MyTrainer", "nnUNetPlans", "cpu")
        assert one.npz
        assert not one.c
        assert not one.val
        assert environment["nnUNet_results"] == str(home)
        assert environment["TWINTRACK_SEED"] == seed
        assert int(environment["nnUNet_n_proc_DA"]) >= 1
        assert str(home / name / "MyTrainer__nnUNetPlans__3d_lowres") in output.replace("\n", "")
    told = run([*given, "--seed", "7", "-device", "cpu"]).stderr  # all of it is done
    assert told.count("which is trained already (delete ") == 3
    assert (len(commands.planned), len(commands.trained)) == (2, 3)


def test_cases_that_come_later_are_preprocessed_too(commands: Commands, tmp_path: Path) -> None:
    given = arguments(tmp_path, "-k", "1", "-f", "0")
    labels = tmp_path / "raw/Dataset104_PDAC/labelsTr"
    labels.mkdir(parents=True, exist_ok=True)
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
    run(given)
    assert [one.d for one in commands.planned] == [[103], [104], [104]]


def test_networks_trained_without_probabilities_are_validated_for_them(
    commands: Commands, tmp_path: Path
) -> None:
    given = arguments(tmp_path, "-k", "1", "-f", "0")
    commands.leave = [name for name in VALIDATED if not name.endswith(".npz")]
    run(given)
    before = len(commands.trained)
    commands.leave = VALIDATED[:-1]  # stopped at the end: the last file may be damaged
    for _ in range(2):
        run([*given, "--npz"])
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
        (["-f", "best"], "-f is 'best'"),
        (["-device", "tpu"], "-device is 'tpu'"),
        (["-d", "7"], "0 data sets of this number; twintrack prepare makes them"),
        (["--npz"], "--npz with -f all: "),
        (["--npz", "-f", "0", "--small"], "--npz with --small: "),
        (["--epochs", "9"], "--epochs is 9, but only small networks (--small) take it"),
        (["--iterations", "9"], "--iterations is 9, but only small networks"),
        (["--small", "-c", "2d"], "-c is '2d', but --small brings its own"),
    ],
)
def test_errors_come_before_any_work_with_status_2(
    commands: Commands, tmp_path: Path, capsys: Any, more: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", *arguments(tmp_path)[:2], *arguments(tmp_path, *more)[4:]])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not commands.trained


def test_what_nnunet_says_last_is_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "raw" / "Dataset104_PDAC").mkdir(parents=True)
    settings = training.Training(
        tmp_path / "raw", tmp_path / "preprocessed", tmp_path / "results", device="cpu", processes=1
    )
    settings.results.mkdir()
    with pytest.raises(
        RuntimeError, match=r"plan_and_preprocess_entry ended with status 1.*x\.log"
    ):
        training.plan_and_preprocess(104, settings, tmp_path / "x.log")


def test_small_networks_need_three_stages() -> None:
    # With two nnU-Net's loss is 0/0: see the weights of its deep supervision.
    with pytest.raises(ValueError, match="of 2 stages: three stages or more"):
        training.Small(features=(8, 16), patch=(16, 16, 16))
