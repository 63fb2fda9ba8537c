"""The Grand Challenge entry point."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("nnunetv2")
torch = pytest.importorskip("torch")

import tiny_models as tiny  # noqa: E402
from tiny_images import AFFINES, ct  # noqa: E402

from twintrack.calibration.calibrator import Calibrator  # noqa: E402
from twintrack.ensemble import ensemble_record  # noqa: E402
from twintrack.nnunet import Pipeline, grand_challenge  # noqa: E402
from twintrack.volumes import read_volume, write_volume  # noqa: E402

pytestmark = pytest.mark.nnunet


@pytest.fixture
def place(tmp_path: Path) -> Path:
    root = tmp_path / "place"
    for seed in range(2):
        tiny.write_model(root / "members" / f"m{seed}", seed)
    tiny.write_model(root / "coarse", favour={1: 50.0}, spacing=(9.0, 4.5, 4.5))
    scores = np.linspace(0, 1, 500, dtype=np.float32)
    record = ensemble_record(2, (1,), "probabilities")
    Calibrator(bins=10, ensemble=record).fit(scores, [scores > 0.4]).save(root / "map.json")
    return root


def test_grand_challenge(
    place: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "input" / "images" / "thoracic-abdominal-ct"
    folder.mkdir(parents=True)
    given = [
        *("--input", str(tmp_path / "input"), "--output", str(tmp_path / "output")),
        *("--model", str(tmp_path / "model"), "-device", "cpu"),
    ]
    assert grand_challenge.main(given) == 2
    assert "no .mha image" in capsys.readouterr().err
    write_volume(folder / "any-name.mha", ct(), AFFINES["LPS"])
    (folder / "._any-name.mha").write_bytes(b"left by another system")
    assert grand_challenge.main(given) == 2
    assert "members" in capsys.readouterr().err
    (tmp_path / "model").symlink_to(place)
    settings = place / "settings.json"
    chosen = {"mirroring": False, "threshold": "majority", "roi": {"margins": [50, 50, 50]}}
    settings.write_text(json.dumps(chosen))
    (place / "calibrator.json").write_bytes((place / "map.json").read_bytes())
    assert grand_challenge.main(given) == 0
    images = tmp_path / "output" / "images"
    score = read_volume(images / "pdac-confidence" / "output.mha")
    mask = read_volume(images / "pdac-segmentation" / "output.mha")
    expected = Pipeline(
        [place / "members/m0", place / "members/m1"],
        calibrator=place / "map.json",
        device="cpu",
        mirroring=False,
    ).predict(folder / "any-name.mha")
    assert score.array.dtype == np.float32
    assert mask.array.dtype == np.uint8
    np.testing.assert_array_equal(score.array, expected.score.array)
    threshold = Calibrator.load(place / "map.json").threshold("majority")
    np.testing.assert_array_equal(mask.array, score.array > threshold)
    np.testing.assert_allclose(score.affine, AFFINES["LPS"], atol=1e-6)
    # Notes without a place in the code. Of two results there are both or none.
    real, written = grand_challenge.write_volume, []

    def full(file: Path, *volume: Any) -> None:
        written.append(file)
        if len(written) == 2:
            raise OSError(28, "No space left on device", str(file))
        real(file, *volume)

    monkeypatch.setattr(grand_challenge, "write_volume", full)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    capsys.readouterr()
    assert grand_challenge.main([*given, "-device", "auto"]) == 2
    assert len(written) == 2
    assert [file for file in images.rglob("*") if file.is_file()] == []
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "twintrack: the networks run on the CPU, where a CT takes long"
    assert "No space left on device" in told[1]
    assert len(told) == 2
    for wrong in (
        '{"threshold": "0.5"}',
        '{"roi": {"margin": 3}}',
        '{"mirrorring": false}',
        "[1]",
        '{"members": []}',
        "{",
    ):
        settings.write_text(wrong)
        assert grand_challenge.main(given) == 2
        assert "settings.json" in capsys.readouterr().err
