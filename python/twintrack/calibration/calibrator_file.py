"""The calibrator file: one JSON object with the knots of the map and where they come from.

Version 1 of the format::

    format            "twintrack-calibrator"
    format_version    1
    knots             {"x": [...], "y": [...]}  in [0, 1], x increasing, y not decreasing
    target            "mhr" | "single" | "hard" | "majority" | "none"
    rater             number of the rater that "single" follows, else null
    kind              "platt" | "beta" | "temperature", with "parameters", one object of numbers, or
                      of "hard" one for each rater (`fit_parametric`); both absent for isotonic maps
    raters            number of raters
    cases             number of cases
    voxels            number of voxels
    prevalence        share of them that is tumour, by the answers that the map follows, or null
    region            which voxels counted: "all", "mask", "roi", "box"
    bins              {"asked": M, "made": B, "largest_share": voxels of the largest bin / voxels,
                       "exact": bool, "rule": "equal mass" | "cells"} or null; with "cells", a bin
                       for every cell, M is B, so that earlier versions read the file
    cross_validation  {"folds": K, "chosen": M, "best": M, "scores": {"M": score},
                       "standard_errors": {"M": error}, "zero_votes": {"M": share}} or null
    bounds            {"floor": f, "ceiling": c, "auto": those of the two that were chosen} or null
    facts             what `MapFacts` has, or null
    case_weight       "cases" if every patient counts the same, "numbers" if cases were weighted by
                      numbers; absent if every voxel counts the same
    thresholds        {"majority": t, "dice": t}: where masks begin (`Thresholds`), either may be
                      null; or null
    ensemble          how the score was made, or null
    versions          {"twintrack": ..., "numpy": ...}
    update            {"a": ..., "b": ..., "cases": n, "patients": n} where the log-odds of the map
                      are a times those of the fit plus b, by an audit on n new cases, or for
                      another prevalence; else absent
    fitted_on         [{"case": ..., "score": ..., "patient": ...}, ...], sorted, or null: the
                      cases that the map was fitted on, by digests of name, score and patient
                      (`FittedCase`), as far as they are known. "score" may be null, and "patient"
                      is absent where a case is a patient of its own; further fields are passed
                      over.
    band              what `MapBand` has, {"level": p, "kind": "pointwise" | "simultaneous",
                      "groups": G, "effective_groups": n, "x": [...], "low": [...],
                      "high": [...]}, the limits linear between the scores x; absent where no band
                      is kept with the map
    volumes           what `VolumeSpread` has; absent without a band, and where it is not known

Files of earlier versions lack "fitted_on", "prevalence", "bounds", "facts", "thresholds", "rule"
and all of "cross_validation" but "folds" and "scores".

Numbers are written so that they are read back to the same bits. A file may have 16 MiB: a case
takes about 80 bytes, with a patient 115, and a knot about 50, so that there is room for 10,000
cases (0.8 MB) and for 100,000.
"""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from twintrack.calibration.calibration_map import CalibrationMap
from twintrack.calibration.map_band import MapBand
from twintrack.calibration.volume_interval import VolumeSpread
from twintrack.errors import InputError
from twintrack.files import as_record, read_record, write_text
from twintrack.version import __version__

if TYPE_CHECKING:
    from twintrack.calibration.calibrator import Calibrator
    from twintrack.calibration.records import BandRecord, VolumesRecord

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
        **_band_fields(calibrator.band_),
    }
    text = json.dumps(content, indent=1, allow_nan=False)
    if len(text) >= LARGEST_FILE:  # all of it is ASCII
        raise InputError(
            f"would take {len(text):,} bytes, but a calibrator file may have "
            f"{LARGEST_FILE:,}: there are {len(fitted.x):,} knots and {len(cases or ()):,} cases "
            "with a name; fewer bins make fewer knots, and cases without a name are not listed",
            file=path,
        )
    write_text(path, text + "\n")


def describe(calibrator: Calibrator) -> dict[str, Any]:
    """Return what the file says of the map that a calibrator is making: its fields but the knots.

    It is asked when the bins are there; afterwards parameters may change and the map does not.
    """
    bins = None
    if calibrator.target != "none" and calibrator.kind == "isotonic":
        made = calibrator.bins_
        bins = {
            "asked": made.asked,
            "made": len(made),
            "largest_share": float(made.count.max()) / calibrator.n_voxels_,
            "exact": calibrator.exact,
            "rule": "cells" if calibrator.bins_used == "cells" else "equal mass",
        }
    choice = None
    if calibrator.target != "none" and calibrator.bins == "auto":
        choice = calibrator.bin_choice_.to_dict()
    bounds = None
    asked = {"floor": calibrator.floor, "ceiling": calibrator.ceiling}
    if asked != {"floor": 0.0, "ceiling": 1.0}:
        bounds = {
            "floor": calibrator.floor_,
            "ceiling": calibrator.ceiling_,
            "auto": [name for name, value in asked.items() if value == "auto"],
        }
    weighing = calibrator.weighing
    return {
        "target": calibrator.target,
        "rater": int(calibrator.rater) if calibrator.target == "single" else None,
        **(
            {"kind": calibrator.kind, "parameters": [*calibrator.parameters_]}
            if calibrator.parameters_
            else {}
        ),
        "raters": calibrator.n_raters_,
        "cases": calibrator.n_cases_,
        "voxels": calibrator.n_voxels_,
        "prevalence": calibrator.prevalence_,
        "region": calibrator.region_,
        "bins": bins,
        "cross_validation": choice,
        "bounds": bounds,
        **({} if weighing == "voxels" else {"case_weight": weighing}),
        "facts": None,  # these two are looked at when they are asked for
        "thresholds": None,
        "ensemble": None if calibrator.ensemble is None else dict(calibrator.ensemble),
        "versions": {"twintrack": __version__, "numpy": np.__version__},
    }


def _band_fields(band: MapBand | None) -> dict[str, Any]:
    if band is None:
        return {}
    limits = {
        "level": band.level,
        "kind": band.kind,
        "groups": band.groups,
        "effective_groups": band.effective_groups,
        "x": band.score.tolist(),
        "low": band.low.tolist(),
        "high": band.high.tolist(),
    }
    return {"band": limits, **({} if band.volumes is None else {"volumes": asdict(band.volumes)})}


def _band_of(record: BandRecord, volumes: VolumesRecord | None, fitted: CalibrationMap) -> MapBand:
    """Return the band of a file; ValueError if it is none of the map."""
    low, high = CalibrationMap(record.x, record.low), CalibrationMap(record.x, record.high)
    value = fitted(low.x)
    if not np.all((low.y <= value) & (value <= high.y)):
        raise ValueError("the map does not lie in it")
    return MapBand(
        low.x,
        value,
        low.y,
        high.y,
        record.level,
        record.kind,
        record.groups,
        record.effective_groups,
        None
        if volumes is None
        else VolumeSpread(*(getattr(volumes, f.name) for f in fields(VolumeSpread))),
    )


def read_calibrator(path: str | Path) -> Calibrator:
    """Read a calibrator file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    InputError
        If the file is no calibrator, is damaged, or has a newer format; names file and field.
    """
    from twintrack.calibration.calibrator import Calibrator
    from twintrack.calibration.records import Bins, Bounds, CalibratorRecord, Version

    path = Path(path)
    content = read_record(path, object, LARGEST_FILE)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"not a calibrator file: its format is not {FORMAT!r}", file=path)
    version = as_record(content, Version, path).format_version
    if version > FORMAT_VERSION:
        raise InputError(
            f"format_version is {version}, this TwinTrack reads up to {FORMAT_VERSION}: "
            "update TwinTrack",
            file=path,
        )
    record = as_record(content, CalibratorRecord, path)
    try:
        fitted = CalibrationMap(record.knots.x, record.knots.y)
    except ValueError as error:
        raise InputError(f"its knots are broken: {error}", file=path) from error
    bins, bounds = record.bins or Bins(), record.bounds or Bounds()
    calibrator = Calibrator(
        record.target,
        bins="cells" if bins.rule == "cells" else bins.asked,
        kind=record.kind,
        rater=record.rater or 0,
        exact=bins.exact,
        floor="auto" if "floor" in bounds.auto else bounds.floor,
        ceiling="auto" if "ceiling" in bounds.auto else bounds.ceiling,
        case_weight="cases" if record.case_weight == "cases" else "voxels",
        region_rule=record.region,
        ensemble=record.ensemble,
    )
    try:
        calibrator.restore(fitted, content)
    except RecursionError as error:
        raise InputError("it is nested too deeply", file=path) from error
    if record.band is not None:
        try:
            calibrator.band_ = _band_of(record.band, record.volumes, fitted)
        except ValueError as error:
            raise InputError(f"its band is broken: {error}", file=path) from error
    return calibrator
