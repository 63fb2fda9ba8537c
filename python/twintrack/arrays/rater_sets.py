"""Which raters looked at which voxels: the arrays of a case, divided by sets of raters.

A rater may be missing in a case, or may not have looked at a part of it. The voxels of a case are
then divided into parts, one for each set of raters that looked, and each part is a case of its own
with those raters and a region. What lies behind never sees a voxel that a rater did not look at.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from twintrack.arrays.case import OpenCase, open_case
from twintrack.arrays.checks import as_numbers
from twintrack.arrays.host import region_array, to_numpy
from twintrack.arrays.libraries import device_kind
from twintrack.arrays.numbers import whole_number
from twintrack.errors import InputError

MOST_RATERS = 255
"""Raters that one tally counts at most."""

MOST_SETS = 128
"""Sets of raters that one tally holds at most: each takes a table of its own."""

RaterSet: TypeAlias = tuple[int, ...]
"""Numbers of raters, 0-based and ascending."""


class Part(NamedTuple):
    """The voxels that one set of raters looked at.

    Attributes
    ----------
    raters
        The set.
    case
        Their arrays, with the region of the part.
    """

    raters: RaterSet
    case: OpenCase

    def cropped(self, box: tuple[slice, ...]) -> Part:
        """Return what of it lies inside a box."""
        region: Any = self.case.region
        inside: Any = self.case.cropped(box)
        return Part(self.raters, inside if region is None else replace(inside, region=region[box]))

    @contextlib.contextmanager
    def naming(self) -> Iterator[None]:
        """Name raters in errors by their numbers among all raters of the case."""
        try:
            yield
        except InputError as error:
            numbers = {f"raters[{own}]": k for own, k in enumerate(self.raters)}
            if error.argument not in numbers:
                raise
            raise error.replaced(argument=f"raters[{numbers[error.argument]}]") from error


class OpenParts(NamedTuple):
    """A case divided by who looked.

    Attributes
    ----------
    number
        Raters that the case may have: N, with those that are missing.
    parts
        By set of raters; voxels that nobody looked at are in none. One part with all raters if
        nothing is missing.
    """

    number: int
    parts: tuple[Part, ...]

    @property
    def partly(self) -> bool:
        """Whether there is a region: of the user, or of voxels that someone did not look at."""
        return not self.parts or any(part.case.region is not None for part in self.parts)

    @property
    def missing(self) -> list[int]:
        """Raters that looked at nothing, 0-based."""
        return sorted(set(range(self.number)).difference(*(part.raters for part in self.parts)))

    def cropped(self, box: tuple[slice, ...]) -> OpenParts:
        """Return what of the parts lies inside a box."""
        return OpenParts(self.number, tuple(part.cropped(box) for part in self.parts))


def open_parts(
    score: Any,
    raters: Any,
    region: Any | None = None,
    ignore_label: int | None = None,
) -> OpenParts:
    """Return the arrays of one case, divided by the sets of raters that looked; nothing is copied.

    Parameters
    ----------
    score, region
        As `open_case` takes them.
    raters
        As `open_case` takes them. None in a list is a rater that the case does not have; what a
        NumPy masked array masks, the rater did not look at.
    ignore_label
        Value of annotations where the rater did not look, such as 255.

    Raises
    ------
    TypeError, ValueError
        As `open_case`; no rater is there, the label is 0 or 1, or there are more than 128 sets.
    """
    if ignore_label is not None:
        ignore_label = whole_number(ignore_label, "ignore_label", -(1 << 63), (1 << 63) - 1)
        if ignore_label in (0, 1):
            raise InputError(
                "0 and 1 are answers; name the value of voxels that a rater did not look at",
                argument="ignore_label",
                value=ignore_label,
            )
    there = _present(raters)
    if there is None and ignore_label is None:
        return parts_of(open_case(score, raters, region))
    number = len(raters) if there is None else len(there)
    listed = list(raters) if there is None else there
    present = {k: rater for k, rater in enumerate(listed) if rater is not None}
    if not present:
        raise InputError("has no rater: all are None", argument="raters")
    # What is wrong with the arrays themselves is told before they are looked into.
    whole = Part(tuple(present), open_case(score, [_data(r) for r in present.values()], region))
    masks: Sequence[Any] = whole.case.raters
    for k, mask in enumerate(masks):
        if mask.shape != whole.case.score.shape:
            raise InputError(
                f"has shape {tuple(mask.shape)} but score has shape "
                f"{tuple(whole.case.score.shape)}",
                argument=f"raters[{whole.raters[k]}]",
            )
    divided = _divided(present, region, ignore_label)
    if divided is None:
        return OpenParts(number, (whole,))
    parts = [
        Part(looked, open_case(score, [_data(present[k]) for k in looked], where))
        for looked, where in divided
    ]
    return OpenParts(number, tuple(parts))


def parts_of(case: OpenCase) -> OpenParts:
    """Return a case whose raters are all there and looked at all voxels that count."""
    everyone = tuple(range(len(case.raters)))
    return OpenParts(len(everyone), (Part(everyone, case),))


def marks_of(raters: Any, ignore_label: int | None = None) -> Any:
    """Return the raters that are there as masks, 0 where they did not look; as given if all is."""
    there = _present(raters)
    if there is None and ignore_label is None:
        return raters
    masks = []
    for rater in list(raters) if there is None else there:
        if rater is None:
            continue
        looked, data = _looked(rater, ignore_label), _data(rater)
        if looked is not None and device_kind(data) is None:
            data = as_numbers(to_numpy(data, "raters"))
        masks.append(data if looked is None else (data == 1) & looked)
    return masks


def _present(raters: Any) -> list[Any] | None:
    """Return the raters one by one if some are missing or masked, else None."""
    if isinstance(raters, np.ma.MaskedArray):
        return list(raters) if np.ma.is_masked(raters) else None
    if isinstance(raters, (list, tuple)) and any(
        rater is None or (isinstance(rater, np.ma.MaskedArray) and np.ma.is_masked(rater))
        for rater in raters
    ):
        return list(raters)
    return None


def _data(rater: Any) -> Any:
    return np.ma.getdata(rater) if isinstance(rater, np.ma.MaskedArray) else rater


def _looked(rater: Any, ignore_label: int | None) -> Any | None:
    """Return where a rater looked, as booleans of the array's library; None if everywhere."""
    data = _data(rater)
    looked: Any = None
    if device_kind(data) is None:
        values = as_numbers(to_numpy(data, "raters"))
        if ignore_label is not None and values.dtype != np.bool_:
            looked = values != ignore_label
        if np.ma.is_masked(rater):
            unmasked = ~np.ma.getmaskarray(rater)
            looked = unmasked if looked is None else looked & unmasked
    elif ignore_label is not None and _holds(str(data.dtype).rpartition(".")[2], ignore_label):
        looked = data != ignore_label
    return None if looked is None or bool(looked.all()) else looked


def _holds(dtype: str, value: int) -> bool:
    """Whether a dtype has a value: torch wraps one that an integer type does not have."""
    if dtype == "bool":
        return False
    if "int" not in dtype:
        return True
    limits = np.iinfo(dtype)
    return limits.min <= value <= limits.max


def _divided(
    present: dict[int, Any], region: Any | None, ignore_label: int | None
) -> Sequence[tuple[RaterSet, Any]] | None:
    """Return sets of raters and their regions; None if everyone looked everywhere."""
    if region is not None and device_kind(region) is None:
        mask = region_array(region)
        region = None if mask is None else as_numbers(mask) != 0
    elif region is not None:
        region = region != 0
    parts: list[tuple[RaterSet, Any]] = [((), region)]
    divided = False
    for k, rater in present.items():
        looked = _looked(rater, ignore_label)
        if looked is None:
            parts = [((*chosen, k), where) for chosen, where in parts]
            continue
        divided = True
        split: list[tuple[RaterSet, Any]] = []
        for chosen, where in parts:
            inside = looked if where is None else where & looked
            outside = ~looked if where is None else where & ~looked
            split += [((*chosen, k), inside), (chosen, outside)]
        parts = [(chosen, where) for chosen, where in split if bool(where.any())]
        if len(parts) > MOST_SETS:
            raise InputError(
                f"has more than {MOST_SETS} sets of raters who looked at a voxel together: a tally "
                "holds no more; join or leave out raters",
                argument="raters",
            )
    if not divided:
        return None
    return [(chosen, where) for chosen, where in parts if chosen]
