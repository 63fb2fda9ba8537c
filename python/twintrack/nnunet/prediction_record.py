"""``prediction.json``: how the scores of a folder are made, weights included."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct

from twintrack.errors import InputError
from twintrack.files import read_record, replacing
from twintrack.nnunet.pipeline import Pipeline
from twintrack.version import __version__

_TOLD = ("twintrack", "tumour_names", "fitted_on")
"""Entries for people: they decide nothing."""

_ADVICE = "to go on would mix them: use another folder, or delete what is in this one"


class _Network(Struct):
    digests: dict[str, str]


class _Record(Struct):
    members: list[_Network]
    coarse: _Network | None


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


def deciding(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of `describe` decides the scores: a folder of networks may have moved."""

    def of(network: Mapping[str, Any] | None) -> dict[str, Any] | None:
        if network is None:
            return None
        return {name: value for name, value in network.items() if name != "folder"}

    told = {name: value for name, value in settings.items() if name not in _TOLD}
    return {
        **told,
        "members": [of(member) for member in settings["members"]],
        "coarse": of(settings["coarse"]),
    }


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a record, which appears when it is whole."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def check_same(record: Path, settings: Mapping[str, Any], folders: Sequence[Path]) -> None:
    """Refuse to add to predictions that were made in another way.

    Parameters
    ----------
    record
        ``prediction.json`` of the folder.
    settings
        Of `describe`.
    folders
        Of the networks in `settings`: the members', then the coarse network's.

    Raises
    ------
    InputError
        Names what differs: a file of a network, or an entry with both values.
    """
    try:
        read_record(record, _Record)
        before = deciding(read_record(record, dict))
    except InputError as error:
        raise error.replaced(
            wrong=f"not a record of twintrack predict: {error.wrong}",
            advice="delete it, and all is predicted again",
        ) from error
    now = deciding(settings)
    then, there = _take_digests(before), _take_digests(now)
    for key, value in now.items():
        if before.get(key) != value:
            shown = "" if key == "calibrator" else f" {key} = {before.get(key)!r}, not {value!r}"
            raise InputError(
                f"the predictions that are there were made with{shown or ' another map'}",
                file=record,
                advice=_ADVICE,
            )
    # The networks are as many as they were, of the same folds.
    for folder, old, new in zip(folders, then, there, strict=True):
        for name, digest in new.items():
            if old.get(name) != digest:
                raise InputError(
                    f"has changed since the predictions in {record.parent} were made, as by "
                    "another training, or --members in another order",
                    file=folder / name,
                    advice=_ADVICE,
                )


def _take_digests(settings: Mapping[str, Any]) -> list[dict[str, str]]:
    """Take the digests of the files out of a description, for they are compared one by one."""
    networks = [*settings["members"], settings["coarse"]]
    return [network.pop("digests") for network in networks if network is not None]


def _knots(calibrator: Any) -> dict[str, list[float]]:
    knots = getattr(calibrator, "map_", calibrator)
    x, y = ("x", "y") if hasattr(knots, "x") else ("X_thresholds_", "y_thresholds_")
    return {
        "x": np.asarray(getattr(knots, x)).tolist(),
        "y": np.asarray(getattr(knots, y)).tolist(),
    }
