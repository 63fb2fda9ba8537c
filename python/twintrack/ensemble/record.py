"""The record of how an ensemble's scores were made, by which a map that fits others is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from twintrack.arrays.numbers import whole_number
from twintrack.errors import InputError

Average = Literal["probabilities", "logits"]


def ensemble_record(
    members: int, tumour: int | Sequence[int], average: Average, regions: bool = False
) -> dict[str, Any]:
    """Return how a score is made, for `Calibrator(ensemble=...)`: plain values for its file."""
    return {
        "members": members,
        "tumour": tumour_channels(tumour),
        "average": average,
        "regions": regions,
    }


def check_ensemble(calibrator: Any, made: Mapping[str, Any]) -> None:
    """Refuse a calibrator that was fitted on scores made in another way.

    Its map is wrong for other scores, however plausible the result looks.

    Parameters
    ----------
    calibrator
        What it records of its ensemble (``provenance_["ensemble"]``) is compared; one that records
        nothing, a bare map or None fits every score.
    made
        How the scores at hand are made: `ensemble_record`.

    Raises
    ------
    ValueError
        Names the first entry that differs, with both values.
    """
    provenance = getattr(calibrator, "provenance_", None)
    recorded = provenance.get("ensemble") if isinstance(provenance, Mapping) else None
    for key, value in (recorded or {}).items():
        if key in made and made[key] != (list(value) if isinstance(value, tuple) else value):
            raise InputError(
                f"the calibrator was fitted on scores of an ensemble with {key} = {value!r}, but "
                f"this one has {key} = {made[key]!r}"
            )


def tumour_channels(tumour: int | Sequence[int]) -> list[int]:
    """Return the channels that are tumour; ValueError if one is named twice or is negative."""
    given: Any = tumour if np.iterable(tumour) else [tumour]
    channels = [whole_number(channel, f"tumour[{k}]", 0) for k, channel in enumerate(given)]
    if len(set(channels)) != len(channels):
        raise InputError(f"tumour is {tuple(channels)}; it names a channel twice")
    return channels
