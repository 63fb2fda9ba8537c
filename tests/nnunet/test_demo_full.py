"""The paper from end to end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nnunetv2")
pytest.importorskip("torch")

from twintrack.demo_full import Scale, main, run_demo_full

pytestmark = pytest.mark.nnunet

SCALE = Scale(training=2)


class Reached(Exception):  # noqa: N818
    """The step of the demonstration at which a test ends it."""


def until(step: str) -> Any:
    def told(message: str) -> None:
        if message.startswith(step):
            raise Reached

    return told


def test_folder_of_another_scale_or_seed_is_refused(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    for _ in range(2):  # what was interrupted goes on
        with pytest.raises(Reached):
            run_demo_full(out, SCALE, seed=3, told=until("generating"))
    there = sorted(file.name for file in out.iterdir())
    with pytest.raises(
        ValueError, match=r"out: .*: seed 3 \(now 4\), test 10 \(now 5\); delete it"
    ):
        run_demo_full(out, replace(SCALE, test=5), seed=4)
    assert main(["-o", str(out), "--tiny", "--seed", "3"]) == 2
    assert f"{out}: holds a demonstration of another scale" in capsys.readouterr().err
    assert sorted(file.name for file in out.iterdir()) == there


def test_folder_that_does_not_say_its_scale_is_refused(tmp_path: Path) -> None:
    (tmp_path / "prepared.done").touch()
    with pytest.raises(ValueError, match="seed not recorded"):
        run_demo_full(tmp_path, SCALE)
