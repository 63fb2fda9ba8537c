"""The paper from end to end, by nnU-Net's own planning, preprocessing, training and prediction."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("nnunetv2")
pytest.importorskip("torch")

from twintrack.demos.nodules import METHODS
from twintrack.demos.paper import Scale, main, run_demo_full
from twintrack.nnunet.training import Small
from twintrack.volumes import read_volume

pytestmark = pytest.mark.nnunet

# Networks that have hardly begun to learn: what they find is anything, on every processor another.
SCALE = Scale(
    training=2,
    calibration=2,
    test=2,
    members=1,
    shape=(80, 72, 40),
    coarse=Small(patch=(8, 32, 32), epochs=1, iterations=3),
    fine=Small(patch=(32, 48, 48), epochs=1, iterations=3),
)


class Reached(Exception):  # noqa: N818
    """The step of the demonstration at which a test ends it."""


def until(step: str) -> Any:
    def told(message: str) -> None:
        if message.startswith(step):
            raise Reached

    return told


def test_from_phantoms_to_the_report(tmp_path: Path) -> None:
    run_demo_full(tmp_path, SCALE, resamples=20)
    assert (tmp_path / "report" / "report.html").is_file()
    table = (tmp_path / "report" / "table1.md").read_text(encoding="utf-8")
    assert [row.split("|")[1].strip() for row in table.splitlines()[2:6]] == list(METHODS)

    predicted = sorted(tmp_path.glob("*/scores/*.nii.gz"))
    assert len(predicted) == SCALE.calibration + SCALE.test
    for file in predicted:
        score = read_volume(file).array
        roi = read_volume(file.parent / "rois" / file.name).array != 0
        assert score.shape == roi.shape == SCALE.shape
        assert np.all((score >= 0) & (score <= 1))
        assert not score[~roi].any()
        assert score[roi].any()

    files = {file: file.read_bytes() for file in tmp_path.rglob("scores/**/*") if file.is_file()}
    predicted[-1].unlink()  # predicted again from the same networks
    with pytest.raises(Reached):
        run_demo_full(tmp_path, SCALE, told=until("fitting"))
    assert files == {
        file: file.read_bytes() for file in tmp_path.rglob("scores/**/*") if file.is_file()
    }


def test_folder_of_another_scale_or_seed_is_refused(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    for _ in range(2):  # what was interrupted goes on
        with pytest.raises(Reached):
            run_demo_full(out, SCALE, seed=3, told=until("generating"))
    there = sorted(file.name for file in out.iterdir())
    with pytest.raises(ValueError, match=r"out: .*: seed 3 \(now 4\), test 2 \(now 5\); delete it"):
        run_demo_full(out, replace(SCALE, test=5), seed=4)
    assert main(["-o", str(out), "--tiny", "--seed", "3"]) == 2
    assert f"{out}: holds a demonstration of another scale" in capsys.readouterr().err
    assert sorted(file.name for file in out.iterdir()) == there


def test_folder_that_does_not_say_its_scale_is_refused(tmp_path: Path) -> None:
    (tmp_path / "prepared.done").touch()
    with pytest.raises(ValueError, match="seed not recorded"):
        run_demo_full(tmp_path, SCALE)
