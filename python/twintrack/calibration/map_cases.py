"""A calibration map applied to one array, or to a list of arrays, one per case."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twintrack.arrays.calls import open_score, share_memory, view_of
from twintrack.arrays.case_arguments import holds_cases, naming_case, refuse_iterator, shape_of
from twintrack.calibration.calibration_map import CalibrationMap
from twintrack.errors import InputError


def map_cases(fitted: CalibrationMap, score: Any, out: Any | None = None) -> Any:
    """Map the scores of an array, or of every array of a list; `Calibrator.transform` says how."""
    refuse_iterator(score, "score")
    if not holds_cases(score):
        if isinstance(out, (list, tuple)):
            raise TypeError(f"out is a {type(out).__name__}, but score is one array: pass an array")
        return fitted(score, out)
    if out is None:
        outs: Sequence[Any] = [None] * len(score)
    elif isinstance(out, (list, tuple)) and len(out) == len(score):
        outs = out
        _check_outs(fitted, score, outs)
    else:
        given = f"{len(out)} arrays" if isinstance(out, (list, tuple)) else type(out).__name__
        raise InputError(f"score has {len(score)} cases: out must be as many arrays, not {given}")
    results = []
    for number, (one, into) in enumerate(zip(score, outs, strict=True)):
        with naming_case(number, len(outs)):
            results.append(fitted(one, into))
    return results


def _check_outs(fitted: CalibrationMap, scores: Sequence[Any], outs: Sequence[Any]) -> None:
    """Raise now what would otherwise be raised when some of `outs` have been written to."""
    for number, (score, out) in enumerate(zip(scores, outs, strict=True)):
        with naming_case(number, len(outs)):
            if shape_of(out) != shape_of(score):
                raise InputError(
                    f"out has shape {shape_of(out)} but score has shape {shape_of(score)}"
                )
            open_score(score, out)
            fitted(score[:0], out[:0])  # their dtypes
    _refuse_shared(scores, outs)
    for number, score in enumerate(scores):
        with naming_case(number, len(outs)):
            fitted(score)  # its values; costs what mapping costs, and the room of one case


def _refuse_shared(scores: Sequence[Any], outs: Sequence[Any]) -> None:
    """Raise ValueError if writing a case would change another's score or result."""
    read, written = ([view_of(array, "score") for array in arrays] for arrays in (scores, outs))
    for number, target in enumerate(written):
        for other in range(len(outs)):
            for name, array in (("score", read[other]), ("out", written[other])):
                if other != number and share_memory(target, array):
                    raise InputError(
                        f"out[{number}] shares memory with {name}[{other}], which is another case's"
                    )
