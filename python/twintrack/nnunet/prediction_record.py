"""What is recorded of a folder of predictions, and whether it may be continued.

``prediction.json`` says how the scores of a folder are made, weights included; ``inputs/CASE.json``
(role to `FileStamp`) which images those of a case were made from. One file a case, for several
processes may do a part of the cases each.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from twintrack.errors import InputError
from twintrack.files import replacing
from twintrack.nnunet.pipeline import Pipeline
from twintrack.runs.inputs import with_files_read
from twintrack.runs.stamps import FileStamp, read_stamp
from twintrack.version import __version__

_TOLD = {"twintrack", "tumour_names", "fitted_on"}
"""Entries for people: they decide nothing, and older records lack some."""


def describe(pipeline: Pipeline, dtype: str) -> dict[str, Any]:
    """Return how the scores are made and stored, in plain values."""
    calibrator = pipeline.calibrator
    fitted_on = getattr(calibrator, "fitted_on_", None)  # a bare map does not know
    return {
        "twintrack": __version__,
        **pipeline.describe(),
        "calibrator": None if calibrator is None else _knots(calibrator),
        "fitted_on": None if fitted_on is None else [case.to_json() for case in fitted_on],
        "dtype": dtype,
    }


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a record, which appears when it is whole."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def stamp_images(files: Sequence[Path]) -> dict[str, Any]:
    """Return the content of ``inputs/CASE.json``; reads the images, whatever files they are in.

    Raises
    ------
    OSError, ValueError
        As `read_stamp`.
    """
    return {role: read_stamp(file).to_json() for role, file in _by_role(files).items()}


def changed_image(record: Path, files: Sequence[Path]) -> Path | None:
    """Return an image that is not what ``inputs/CASE.json`` says, or None if there is none.

    An image that was copied or touched is read again, and counts as unchanged.
    """
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        now = _by_role(files)
        stamps = {role: FileStamp.from_json(stamp) for role, stamp in content.items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        return files[0]
    if set(stamps) != set(now):
        return files[0]
    return next((file for role, file in now.items() if not stamps[role].matches(file)), None)


def _by_role(files: Sequence[Path]) -> dict[str, Path]:
    return with_files_read({f"image_{k}": file for k, file in enumerate(files)})


def check_same(record: Path, settings: Mapping[str, Any], folders: Sequence[Path]) -> None:
    """Refuse to add to predictions that were made in another way.

    Parameters
    ----------
    record
        ``prediction.json`` of the folder. Of older versions it lacks the digests of the networks'
        files, which are then not compared.
    settings
        Of `describe`.
    folders
        Of the networks in `settings`: the members', then the coarse network's.

    Raises
    ------
    ValueError
        Names what differs: a file of a network, or an entry with both values.
    """
    advice = "to go on would mix them: use another folder, or delete what is in this one"
    try:
        before = dict(json.loads(record.read_text(encoding="utf-8")))
        then, now = _networks(before), _networks(settings)
        digests = [dict(network.get("digests", {})) for network in then]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"not a record of twintrack predict ({error!r}); delete it, and all is predicted again",
            file=record,
        ) from error
    # What the files hold is compared: a folder may have moved.
    apart = {"digests", "folder"} if all(digests) else {"digests"}
    old, new = _without(before, apart), _without(settings, apart)
    for key, value in new.items():
        if key not in _TOLD and old.get(key) != value:
            shown = "" if key == "calibrator" else f" {key} = {old.get(key)!r}, not {value!r}"
            raise InputError(
                f"the predictions that are there were made with{shown or ' another map'}; {advice}",
                file=record,
            )
    # The networks are as many as they were, of the same folds.
    for folder, known, network in zip(folders, digests, now, strict=True):
        for name, digest in network["digests"].items():
            if known.get(name, digest) != digest:
                raise InputError(
                    f"has changed since the predictions in {record.parent} were "
                    f"made, as by another training, or --members in another order; {advice}",
                    file=folder / name,
                )


def _networks(content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    coarse = content["coarse"]
    return [*content["members"], *([] if coarse is None else [coarse])]


def _without(content: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Leave out entries of the networks."""

    def bare(network: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in network.items() if name not in names}

    coarse = content["coarse"]
    return {
        **content,
        "members": [bare(member) for member in content["members"]],
        "coarse": None if coarse is None else bare(coarse),
    }


def _knots(calibrator: Any) -> dict[str, list[float]]:
    knots = getattr(calibrator, "map_", calibrator)
    x, y = ("x", "y") if hasattr(knots, "x") else ("X_thresholds_", "y_thresholds_")
    return {
        "x": np.asarray(getattr(knots, x)).tolist(),
        "y": np.asarray(getattr(knots, y)).tolist(),
    }
