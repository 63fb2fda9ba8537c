"""The algorithm container of grand-challenge.org: one CT in, confidence and segmentation out.

``python -m twintrack.nnunet.grand_challenge`` reads ``/input/images/thoracic-abdominal-ct/*.mha``
and writes ``/output/images/pdac-confidence/output.mha`` (the calibrated score, float32) and
``/output/images/pdac-segmentation/output.mha`` (uint8). The model folder holds ::

    coarse/            a trained nnU-Net folder (optional)
    members/NAME/      one trained nnU-Net folder each
    calibrator.json    of twintrack fit (optional)
    settings.json      keyword arguments of `Pipeline`, such as {"mirroring": false, "threshold":
                       "majority"} (optional)
"""

from __future__ import annotations

import argparse
import inspect
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twintrack.errors import InputError
from twintrack.files import read_record
from twintrack.nnunet.pipeline import Pipeline
from twintrack.nnunet.roi import RoiRule
from twintrack.volumes import write_volume

INPUT = "images/thoracic-abdominal-ct"
CONFIDENCE = "images/pdac-confidence/output.mha"
SEGMENTATION = "images/pdac-segmentation/output.mha"


def run(source: Path, target: Path, model: Path, device: str = "auto") -> None:
    """Predict the one CT below `source` and write the results below `target`: both or none.

    Warns
    -----
    UserWarning
        The networks run on the CPU without having been told so, and what `Pipeline.predict` notes.

    Raises
    ------
    FileNotFoundError
        No CT, or no models.
    ValueError
        More than one CT, or anything that `Pipeline` refuses.
    """
    folder = source / INPUT
    images = [image for image in sorted(folder.glob("*.mha")) if image.name[0] != "."]
    if not images:
        raise FileNotFoundError(2, "there is no .mha image here", str(folder))
    if len(images) > 1:
        names = ", ".join(image.name for image in images)
        raise InputError(f"holds {names}; an algorithm job gets one image", file=folder)
    pipeline = load_pipeline(model, device)
    if device == "auto" and pipeline.device.type == "cpu":
        warnings.warn("the networks run on the CPU, where a CT takes long", stacklevel=2)
    prediction = pipeline.predict(images[0])
    results = {target / CONFIDENCE: prediction.score, target / SEGMENTATION: prediction.mask}
    try:
        for file, volume in results.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            write_volume(file, volume.array, volume)
    except BaseException:
        for file in results:
            file.unlink(missing_ok=True)
        raise


def load_pipeline(model: Path, device: str) -> Pipeline:
    """Load the pipeline that a model folder describes."""
    if not (model / "members").is_dir():
        raise FileNotFoundError(2, "missing; trained nnU-Net folders go here", f"{model}/members")
    members = sorted(folder for folder in (model / "members").iterdir() if folder.is_dir())
    coarse, calibrator = model / "coarse", model / "calibrator.json"
    file = model / "settings.json"
    settings: dict[str, Any] = {}
    try:
        settings = _read_settings(file)
        return Pipeline(
            members,
            coarse if coarse.is_dir() else None,
            calibrator if calibrator.is_file() else None,
            **{"device": device, **settings},
        )
    except TypeError as error:
        raise InputError.of(error, file=file) from error
    except InputError as error:
        if error.argument not in settings:
            raise
        raise InputError.of(error, file=f"{file}: {error.argument}") from error


def _read_settings(path: Path) -> dict[str, Any]:
    """Return keyword arguments of `Pipeline`; none if there is no such file."""
    if not path.is_file():
        return {}
    settings: dict[str, Any] = read_record(path, dict)
    parameters = inspect.signature(Pipeline).parameters.values()
    known = [one.name for one in parameters if one.kind is one.KEYWORD_ONLY]
    unknown = sorted(settings.keys() - set(known))
    if unknown:
        raise InputError(f"{unknown[0]!r} is no setting; known are {', '.join(known)}", file=path)
    if "roi" in settings:
        settings["roi"] = RoiRule(**settings["roi"])
    return settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the container's job; the folders can be redirected. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="twintrack.nnunet.grand_challenge")
    parser.add_argument("--input", type=Path, default=Path("/input"))
    parser.add_argument("--output", type=Path, default=Path("/output"))
    parser.add_argument("--model", type=Path, default=Path("/opt/ml/model"))
    parser.add_argument("-device", default="auto")
    given = parser.parse_args(arguments)
    try:
        with warnings.catch_warnings():
            # For the job's log: what is noted, not where in the code.
            warnings.simplefilter("default", UserWarning)
            warnings.showwarning = lambda note, *_: print(f"twintrack: {note}", file=sys.stderr)
            run(given.input, given.output, given.model, given.device)
    except (OSError, ValueError, MemoryError) as error:
        print(f"twintrack: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
