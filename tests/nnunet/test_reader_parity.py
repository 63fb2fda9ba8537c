"""Scores that nnU-Net writes with each of its readers, against those of ``twintrack predict``."""

from __future__ import annotations

import csv
import json
import shutil
import warnings
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("nnunetv2")

import tiny_models as tiny
from nnunet_scores import affine_of
from nnunetv2.ensembling.ensemble import ensemble_folders
from nnunetv2.inference.predict_from_raw_data import predict_entry_point

from twintrack.cli import command_app
from twintrack.volumes import read_score, read_volume, write_volume
from twintrack.volumes.nnunet_files import READERS
from twintrack.volumes.slabs import open_slabs

pytestmark = pytest.mark.nnunet

SHAPE = (22, 20, 14)
CASES = {"LPS": False, "LPI": False, "PIR": True}  # axes, and whether they are oblique
# As in test_export_parity.py.
WORST, MEAN = 2e-6, 1e-7


def write_cohort(root: Path) -> None:
    """Images with something to see in them, and two raters who mark a box of it."""
    for folder in ("images", *(f"cases/{name}" for name in CASES)):
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(7)
    for name, oblique in CASES.items():
        affine = affine_of(name, oblique)
        image = rng.integers(-200, 300, SHAPE).astype(np.int16)
        image[3:9, 4:9, 2:6] += 300
        write_volume(root / "images" / f"{name}_0000.nii.gz", image, affine)
        for rater in range(2):
            marked = np.zeros(SHAPE, np.uint8)
            marked[3 : 9 + rater, 4:9, 2 : 7 - rater] = 1
            write_volume(root / "cases" / name / f"annotation_{rater + 1}.nii.gz", marked, affine)


def run(command: str, *arguments: object) -> None:
    result = CliRunner().invoke(command_app(command), [str(given) for given in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output


@pytest.fixture
def nnunet_predict(monkeypatch, tmp_path):
    """``nnUNetv2_predict --save_probabilities`` of a member, in this process."""

    def predict(member: str, out: Path) -> None:
        results = "nnunetv2.utilities.file_path_utilities.nnUNet_results"
        monkeypatch.setattr(results, str(tmp_path / "results" / member))
        arguments = [
            *("nnUNetv2_predict", "-i", tmp_path / "images", "-o", out, "--save_probabilities"),
            *("-d", "Dataset901_Tiny", "-c", "3d_fullres", "-f", 0, "-device", "cpu"),
            *("--disable_tta", "-npp", 0, "-nps", 0),
        ]
        monkeypatch.setattr("sys.argv", [str(given) for given in arguments])
        # It forks a pool to list file names, which can hang in a process that has threads.
        monkeypatch.setattr("nnunetv2.utilities.utils.Pool", ThreadPool)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            predict_entry_point()

    return predict


@pytest.mark.parametrize("reader", READERS)
def test_what_nnunet_writes_is_what_twintrack_predicts(
    reader, tmp_path, nnunet_predict, monkeypatch
):
    write_cohort(tmp_path)
    models = []
    for seed in range(2):
        folder = (
            tmp_path / f"results/m{seed}/Dataset901_Tiny/nnUNetTrainer__nnUNetPlans__3d_fullres"
        )
        models.append(tiny.write_model(folder, seed, reader=reader, favour={1: 1.0}))
        dataset = json.loads((folder / "dataset.json").read_text())
        named = {**dataset, "overwrite_image_reader_writer": reader}
        (folder / "dataset.json").write_text(json.dumps(named))
        nnunet_predict(f"m{seed}", tmp_path / f"nnunet{seed}")
    # nnUNetv2_ensemble, in threads instead of processes.
    threads = SimpleNamespace(get_context=lambda _: SimpleNamespace(Pool=ThreadPool))
    monkeypatch.setattr("nnunetv2.ensembling.ensemble.multiprocessing", threads)
    ensemble_folders(
        [str(tmp_path / f"nnunet{seed}") for seed in range(2)], str(tmp_path / "mean"), True, 1
    )
    assert not (tmp_path / "mean" / "plans.json").exists()  # the data set names the reader
    # Where nnUNetv2_train --npz leaves them.
    validation = models[0] / "fold_0" / "validation"
    shutil.copytree(tmp_path / "nnunet0", validation)
    for name in ("plans.json", "dataset.json"):
        (validation / name).unlink()

    for members, folders in ((models[:1], ("nnunet0", validation)), (models, ("mean",))):
        ours = tmp_path / f"ours{len(members)}"
        given = [option for member in members for option in ("--members", member)]
        run(
            "predict",
            "-i",
            tmp_path / "images",
            "-o",
            ours,
            *given,
            "-device",
            "cpu",
            "--disable_tta",
        )
        figures = evaluated(tmp_path, ours)
        for folder in folders:
            apart = []
            for name in CASES:
                expected = read_volume(ours / f"{name}.nii.gz")
                score = read_score(tmp_path / folder / f"{name}.npz")
                assert score.notes == ()
                assert expected.array.std() > 0.05  # there is something to compare
                difference = np.abs(score.array - expected.array)
                apart.append((difference.max(), difference.mean()))
                assert difference.max() <= WORST
                assert difference.mean() <= MEAN
                np.testing.assert_allclose(score.affine, expected.affine, atol=1e-4)
                slabs = list(open_slabs(score.path).slabs(3))
                np.testing.assert_array_equal(np.concatenate(slabs, axis=2), score.array)
            worst, mean = np.max(apart, axis=0)
            print(f"| {reader} | {Path(folder).name} | {worst:.1e} | {mean:.1e} |")
            for case, row in evaluated(tmp_path, tmp_path / folder).items():
                assert row["notes"] == figures[case]["notes"]
                for figure, value in row.items():
                    if figure not in ("case", "notes"):
                        expected = float(figures[case][figure])
                        assert float(value) == pytest.approx(expected, rel=1e-5, nan_ok=True), (
                            figure
                        )


def evaluated(root: Path, scores: Path) -> dict[str, dict[str, str]]:
    out = root / "evaluated" / scores.name
    run("evaluate", "-i", root / "cases", "-p", scores, "-o", out, "-q")
    with (out / "cases.csv").open(newline="") as file:
        return {row["case"]: row for row in csv.DictReader(file)}
