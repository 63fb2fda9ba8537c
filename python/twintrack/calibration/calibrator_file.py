"""The calibrator file: one JSON object with the knots of the map and where they come from.

Version 1 of the format::

    format            "twintrack-calibrator"
    format_version    1
    knots             {"x": [...], "y": [...]}  in [0, 1], x increasing, y not decreasing
    target            "mhr" | "single" | "hard" | "none"
    rater             number of the rater that "single" follows, else null
    raters            number of raters
    cases             number of cases
    voxels            number of voxels
    region            which voxels counted: "all", "mask", "roi", "box"
    bins              {"asked": M, "made": B, "largest_share": voxels of the largest bin / voxels,
                       "exact": bool} or null
    cross_validation  {"folds": K, "scores": {"M": score}} or null
    ensemble          how the score was made, or null
    versions          {"twintrack": ..., "numpy": ...}
    fitted_on         [{"case": ..., "score": ...}, ...], sorted, or null: the cases that the map
                      was fitted on, by digests of name and score (`FittedCase`), as far as they
                      are known. "score" may be null; further fields are passed over. Absent in
                      files of earlier versions.

Numbers are written so that they are read back to the same bits. A file may have 16 MiB: a case
takes about 80 bytes and a knot about 50, so that there is room for 10,000 cases (0.8 MB) and for
100,000.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from twintrack.calibration.calibration_map import CalibrationMap
from twintrack.calibration.map_fit import TARGETS
from twintrack.errors import InputError
from twintrack.files import replacing
from twintrack.version import __version__

if TYPE_CHECKING:
    from twintrack.calibration.calibrator import Calibrator

FORMAT = "twintrack-calibrator"
FORMAT_VERSION = 1
LARGEST_FILE = 16 << 20  # bytes; 65000 knots take 3 MB


def write_calibrator(calibrator: Calibrator, path: Path) -> None:
    """Write a fitted calibrator; the file appears whole or not at all."""
    fitted, cases = calibrator.map_, calibrator.fitted_on_
    content: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "knots": {"x": fitted.x.tolist(), "y": fitted.y.tolist()},
        **calibrator.provenance_,
        "fitted_on": None if cases is None else [case.to_json() for case in cases],
    }
    text = json.dumps(content, indent=1, allow_nan=False)
    if len(text) >= LARGEST_FILE:  # all of it is ASCII
        raise InputError(
            f"would take {len(text):,} bytes, but a calibrator file may have "
            f"{LARGEST_FILE:,}: there are {len(cases or ()):,} cases with a name",
            file=path,
        )
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def describe(calibrator: Calibrator) -> dict[str, Any]:
    """Return what the file says of the map that a calibrator is making: its fields but the knots.

    It is asked when the bins are there; afterwards parameters may change and the map does not.
    """
    bins = None
    if calibrator.target != "none":
        made = calibrator.bins_
        bins = {
            "asked": made.asked,
            "made": len(made),
            "largest_share": float(made.count.max()) / calibrator.n_voxels_,
            "exact": calibrator.exact,
        }
    choice = None
    if calibrator.target != "none" and calibrator.bins == "auto":
        tried = calibrator.bin_choice_
        choice = {"folds": tried.folds, "scores": {str(m): s for m, s in tried.scores.items()}}
    return {
        "target": calibrator.target,
        "rater": int(calibrator.rater) if calibrator.target == "single" else None,
        "raters": calibrator.n_raters_,
        "cases": calibrator.n_cases_,
        "voxels": calibrator.n_voxels_,
        "region": calibrator.region_,
        "bins": bins,
        "cross_validation": choice,
        "ensemble": None if calibrator.ensemble is None else dict(calibrator.ensemble),
        "versions": {"twintrack": __version__, "numpy": np.__version__},
    }


def read_calibrator(path: str | Path) -> Calibrator:
    """Read a calibrator file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is no calibrator, is damaged, or has a newer format; names file and field.
    """
    from twintrack.calibration.calibrator import Calibrator

    path = Path(path)

    def fail(reason: str) -> ValueError:
        return InputError(f"{reason}", file=path)

    size = path.stat().st_size
    if size > LARGEST_FILE:
        raise fail(f"{size:,} bytes is too large for a calibrator file")
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise fail(f"not a JSON file ({error})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise fail(f"not a calibrator file: its format is not {FORMAT!r}")
    version = content.get("format_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise fail(f"format_version is {version!r}; it must be a positive number")
    if version > FORMAT_VERSION:
        raise fail(
            f"format_version is {version}, this TwinTrack reads up to {FORMAT_VERSION}: "
            "update TwinTrack"
        )
    knots = content.get("knots")
    if not isinstance(knots, dict) or not all(
        isinstance(knots.get(axis), list)
        and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in knots[axis])
        for axis in ("x", "y")
    ):
        raise fail("knots must hold the lists of numbers x and y")
    try:
        fitted = CalibrationMap(knots["x"], knots["y"])
    except (ValueError, OverflowError) as error:
        raise fail(f"its knots are broken: {error}") from error
    target = content.get("target")
    if target not in TARGETS:
        raise fail(f"target is {target!r}; it must be one of {', '.join(TARGETS)}")
    for name in ("raters", "cases", "voxels"):
        # bool is an int for isinstance; JSON has them apart.
        if type(content.get(name)) is not int or content[name] < 0:
            raise fail(f"{name} is {content.get(name)!r}; it must be a whole number")
    bins, ensemble = content.get("bins"), content.get("ensemble")
    if not (bins is None or isinstance(bins, dict)) or not (
        ensemble is None or isinstance(ensemble, dict)
    ):
        raise fail("bins and ensemble must be objects or null")
    rater = content.get("rater")
    calibrator = Calibrator(
        target,
        bins=bins.get("asked", 250) if bins else 250,
        rater=rater if isinstance(rater, int) else 0,
        exact=bool(bins.get("exact", False)) if bins else False,
        region_rule=content.get("region"),
        ensemble=ensemble,
    )
    try:
        calibrator.restore(fitted, content)
    except RecursionError as error:
        raise fail("it is nested too deeply") from error
    except ValueError as error:
        raise fail(str(error)) from error
    return calibrator


def _refuse(constant: str) -> None:
    raise InputError(f"{constant} is no number of JSON")
