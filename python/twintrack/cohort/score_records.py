"""What the files beside a score tell of it: how the ensemble made it, and where it was asked.

``twintrack predict`` writes ``prediction.json`` into the folder of its scores, and the regions of
interest into ``rois``. nnU-Net's ``CASE.npz`` holds the probability of every class.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from twintrack.arrays.host import region_array
from twintrack.calibration.calibration_map import CalibrationMap
from twintrack.calibration.calibrator import Calibrator
from twintrack.calibration.fitted_on import FittedCase
from twintrack.calibration.records import FittedCases
from twintrack.cohort import Case
from twintrack.cohort.names import as_on_disk
from twintrack.ensemble import check_ensemble
from twintrack.errors import InputError
from twintrack.files import read_record, write_text
from twintrack.version import __version__
from twintrack.volumes.nnunet_files import holds_regions
from twintrack.volumes.reading import count_channels

RECORD = "prediction.json"
"""File in a folder of scores that says how ``twintrack predict`` or ``apply`` made them."""

REGIONS = "rois"
"""Folder beside it with the masks of what the networks were asked about."""

MASKS = "masks"
"""Folder beside it with the masks of 0 and 1 that a threshold makes of the scores."""

LIMITS = ("low", "high")
"""Folders beside it with the limits of the map's band at the scores; each has such a file, too."""


class _Record(Struct):
    """How scores were made: what is asked of it here, whichever command wrote it."""

    ensemble: Annotated[dict[str, Any], Meta(description="be an object")]
    calibrator: Annotated[dict[str, Any] | None, Meta(description="be null or an object")]
    fitted_on: FittedCases = None
    members: Any = None  # of `twintrack predict` alone
    threshold: Annotated[float | None, Meta(description="be null or a number")] = None  # of masks


def record_beside(score: Path) -> Path | None:
    """Return the file that says how a score was made, None if there is none.

    `ensemble_of_score`, `is_calibrated` and `check_score` read it and, of an ``.npz``, what
    `twintrack.volumes.files_read` names: nothing else.
    """
    record = score.with_name(RECORD)
    return record if record.is_file() else None


def ensemble_of_score(score: Path, tumour: Sequence[int] = (1,)) -> dict[str, Any]:
    """Return how a score was made, as far as its files tell: entries of `ensemble_record`.

    Parameters
    ----------
    score
        File of the score. Beside it may be ``prediction.json``, which tells all.
    tumour
        Classes that are merged where the file holds class probabilities, in any format: then they
        are known, and whether they are regions where nnU-Net's ``dataset.json`` tells. Of a single
        volume nothing is known, for whoever wrote it has merged the classes already.

    Raises
    ------
    ValueError
        The score is calibrated already, or the record or the archive cannot be read; names the
        file.
    """
    record = record_beside(score)
    if record is not None:
        content = read_record(record, _Record)
        if content.calibrator is not None:
            raise InputError(
                f"is calibrated already ({record.name}); a map is fitted and applied to "
                "the ensemble's own score: predict without -m into another folder",
                file=score,
            )
        return content.ensemble
    if count_channels(score) > 1:
        regions = holds_regions(score)
        return {"tumour": list(tumour)} | ({} if regions is None else {"regions": regions})
    return {}


def is_calibrated(score: Path) -> bool:
    """Whether the record beside a score says that it is calibrated.

    Raises
    ------
    ValueError
        The record cannot be read; names it.
    """
    record = record_beside(score)
    return record is not None and read_record(record, _Record).calibrator is not None


def fitted_on_beside(score: Path) -> tuple[FittedCase, ...] | None:
    """Return which cases the map was fitted on that made a score, as far as the record tells.

    None of a score that is not calibrated, and where it is not known.

    Raises
    ------
    ValueError
        The record cannot be read; names it.
    """
    record = record_beside(score)
    content = None if record is None else read_record(record, _Record)
    if content is None or content.calibrator is None:
        return None
    return FittedCase.list_from_json(content.fitted_on)


def join_ensembles(
    found: Iterable[tuple[str, Mapping[str, Any]]], given: Mapping[str, Any] | None = None
) -> dict[str, Any] | None:
    """Return what is known of an ensemble from its cases, and what is given; None if nothing is.

    Parameters
    ----------
    found
        Case, and what `ensemble_of_score` returned for it.
    given
        What the user says of it.

    Raises
    ------
    ValueError
        Cases contradict each other or what is given; names case and entry.
    """
    joined = dict(given or {})
    first = dict.fromkeys(joined, "what was given")
    for case, ensemble in found:
        for key, value in ensemble.items():
            if joined.setdefault(key, value) != value:
                raise InputError(
                    f"its score is of an ensemble with {key} = {value!r}, but {first[key]} has "
                    f"{key} = {joined[key]!r}; one map cannot be right for both",
                    case=case,
                )
            first.setdefault(key, f"case {case!r}")
    return joined or None


def check_score(calibrator: Calibrator, score: Path, tumour: Sequence[int] = (1,)) -> None:
    """Refuse to apply a map to a score that is calibrated already or was made in another way.

    Parameters
    ----------
    calibrator
        Compared as far as it says how the scores were made that it was fitted on.
    score, tumour
        As in `ensemble_of_score`; what the files do not tell is not compared.

    Raises
    ------
    ValueError
        Names the file and, of an entry that differs, both values.
    """
    made = ensemble_of_score(score, tumour)
    try:
        check_ensemble(calibrator, made)
    except ValueError as error:
        raise InputError.of(error, file=score) from error


def is_calibrated_by(
    folder: Path,
    calibrator: Calibrator,
    threshold: float | None = None,
    limit: CalibrationMap | None = None,
) -> bool | None:
    """Whether the record of a folder says that its volumes are calibrated by this map.

    Or by this `limit` of its band. And that its masks, if it has any, begin at this threshold,
    where one is given. None if there is no record.

    Raises
    ------
    ValueError
        It is that of ``twintrack predict``, which speaks of other volumes, or cannot be read.
    """
    record = folder / RECORD
    if not record.is_file():
        return None
    content = read_record(record, _Record)
    if content.members is not None:
        raise InputError(
            "is of predictions by networks; name another folder for calibrated volumes", file=record
        )
    same_masks = None in (threshold, content.threshold) or threshold == content.threshold
    return same_masks and all(
        getattr(content, name) == value for name, value in _calibration(calibrator, limit).items()
    )


def record_calibrated(
    folder: Path,
    calibrator: Calibrator,
    threshold: float | None = None,
    limit: CalibrationMap | None = None,
) -> None:
    """Write beside calibrated volumes that they are: so that nothing maps or fits them again.

    A record that says so already stays as it is: whatever was made from it is not made anew.

    Parameters
    ----------
    threshold
        That of the masks, if any are written.
    limit
        Of the map's band, where that is what the volumes went through.

    Raises
    ------
    ValueError
        As `is_calibrated_by`.
    """
    if is_calibrated_by(folder, calibrator, threshold, limit):
        known = read_record(folder / RECORD, _Record).threshold
        if threshold in (None, known):
            return
    cases = calibrator.fitted_on_
    content = {
        "twintrack": __version__,
        **_calibration(calibrator, limit),
        **({} if threshold is None else {"threshold": threshold}),
        "fitted_on": None if cases is None else [case.to_json() for case in cases],
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / RECORD, json.dumps(content, indent=1) + "\n")


def _calibration(calibrator: Calibrator, limit: CalibrationMap | None) -> dict[str, Any]:
    applied = limit or calibrator.map_
    return {
        "ensemble": calibrator.provenance_["ensemble"] or {},
        "calibrator": {"x": applied.x.tolist(), "y": applied.y.tolist()},
    }


def region_of_case(case: Case) -> Path | None:
    """Return the mask of what the networks were asked about, None if there is none.

    It is the region that the cohort names, or else the one that ``twintrack predict`` wrote beside
    the score.
    """
    if case.roi is not None:
        return case.roi
    beside = as_on_disk(case.score.parent / REGIONS / case.score.name)
    return beside if record_beside(case.score) is not None and beside.is_file() else None


def calibrate_score(
    calibrator: Calibrator | CalibrationMap,
    score: NDArray[Any],
    region: NDArray[Any] | None = None,
) -> None:
    """Calibrate an array in place as the pipeline does.

    Parameters
    ----------
    calibrator
        Fitted, or a map.
    score
        Of any shape.
    region
        Of the same shape, 0 outside the region of interest and one other value inside. A score of
        exactly 0 outside means that no network was asked: it stays 0, whatever the map makes of 0.
        Everything else is mapped.

    Raises
    ------
    ValueError
        As `CalibrationMap.__call__`; and for a region that is no mask.
    """
    mask = region_array(region)
    unasked = None if mask is None else (mask == 0) & (score == 0)
    fitted = calibrator if isinstance(calibrator, CalibrationMap) else calibrator.map_
    fitted(score, out=score)
    if unasked is not None:
        np.copyto(score, 0, where=unasked)
