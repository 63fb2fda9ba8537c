"""How score, raters and region say which cases they hold: one, a list of them, or a stack of them.

An array of scores is one case, and a list has one entry per case. Arrays that hold several cases
along their first axis, a stack, cannot always be told from those of one case: five cases of
(8, 8, 8) with five raters have the shapes of one case of (5, 8, 8, 8). What may be either is an
error here, for it would be read in the wrong way without a word.

Only shapes are looked at, so arrays of any library and memory are taken as they are.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from twintrack.arrays.host import rater_arrays
from twintrack.arrays.libraries import device_kind
from twintrack.errors import InputError

Case = tuple[Any, Any, Any]
"""Score, raters, and region or None."""

Shape = tuple[int, ...]

VOLUME_AXES = 3


def read_cases(
    score: Any, raters: Any, region: Any | None = None, stacked: bool | None = None
) -> list[Case]:
    """Return the cases that `Calibrator.fit` is given; it says how they may be given.

    Raises
    ------
    ValueError
        The arrays may be one case and a stack of them, or are a stack and `stacked` is not True;
        there is no case; numbers of entries or shapes do not fit. Names the case.
    TypeError
        An argument is neither an array nor a list.
    """
    refuse_iterator(score, "score")
    if holds_cases(score):
        if stacked is False:
            raise InputError(
                f"score is a {type(score).__name__}, which has one entry per case, but "
                "stacked=False says that it is one case: pass an array"
            )
        return _entries(score, raters, region, bool(stacked))
    if stacked:
        shape = shape_of(score)
        if shape is None or len(shape) < 2:
            raise InputError(
                f"stacked=True, but score has shape {shape}: the first axis counts cases and those "
                "after it are the axes of a case"
            )
        return _entries(score, raters, region, stacked)
    shapes = _fitting_shapes(score, raters, "if so, pass stacked=True")
    if stacked is None and shapes is not None and _may_be_stacked(*shapes):
        raise InputError(
            f"{_both(*shapes)} can be read in two ways: pass stacked=False if they are one case of "
            f"shape {shapes[0]}, and stacked=True if they are {_as_stack(*shapes)}"
        )
    return [(score, rater_list(raters) if stacked is False else raters, region)]


def read_groups(groups: Any, cases: int) -> list[str | None]:
    """Return the name of each case's group, as `Calibrator.fit` takes them; None for no groups.

    Raises
    ------
    ValueError
        There are not as many as cases.
    TypeError
        They are no list, or a group is neither text nor a whole number.
    """
    if groups is None:
        return [None] * cases
    refuse_iterator(groups, "groups")
    if isinstance(groups, (str, bytes)) or _entry_count(groups, "groups") != cases:
        raise InputError(
            f"there are {cases} cases: it must have one entry for each, in their order, "
            "such as the name of the patient",
            argument="groups",
        )
    return [group_name(groups[k], f"groups[{k}]") for k in _indices(groups)]


def group_name(group: Any, argument: str) -> str:
    """Return the name of a group that is text or a whole number; TypeError for anything else."""
    if isinstance(group, str) and group:
        return str(group)
    try:
        return str(operator.index(group))
    except TypeError:
        raise TypeError(
            f"{argument} is {group!r}; a group is text or a whole number, such as the name of the "
            "patient"
        ) from None


def check_one_case(score: Any, raters: Any) -> None:
    """Raise an error if these may be several cases, where one at a time is taken.

    A score of four axes or more is a stack of volumes if its shape and that of the raters can be
    read so; a list of one array per rater says that it is one case. With three axes or fewer it is
    one case wherever it can be.

    Raises
    ------
    ValueError
        The score is a list of arrays, or the arrays are, or may be, a stack; or the axes of raters
        are in another order, which the message names.
    TypeError
        An argument is neither an array nor a list.
    """
    refuse_iterator(score, "score")
    if _holds_arrays(score):
        raise InputError(
            f"score is a {type(score).__name__} of {len(score)} arrays, but one case at a time is "
            "taken here: go through the cases"
        )
    one_by_one = "one case at a time is taken here, so go through them"
    shapes = _fitting_shapes(score, raters, one_by_one)
    if (
        shapes is not None
        and len(shapes[0]) > VOLUME_AXES
        and _may_be_stacked(*shapes)
        and not _one_array_each(raters)
    ):
        raise InputError(
            f"{_both(*shapes)} can be read in two ways: if they are {_as_stack(*shapes)}, "
            f"{one_by_one}; if they are one case of shape {shapes[0]}, pass raters as a list of "
            "one array per rater"
        )


def rater_list(raters: Any) -> Sequence[Any]:
    """Return one mask per rater, from an (N, *shape) array or a sequence of N masks.

    Raises
    ------
    ValueError
        There are none.
    """
    if device_kind(raters) is not None:
        raters = [raters[k] for k in _indices(raters)]
    elif not isinstance(raters, (list, tuple)):
        return rater_arrays(raters)
    if not raters:
        raise InputError("raters is empty: at least one rater mask is needed")
    return [np.asarray(mask) if isinstance(mask, (list, tuple)) else mask for mask in raters]


def holds_cases(score: Any) -> bool:
    """Whether a score is a list with one entry per case; a list of plain numbers is one array.

    Raises
    ------
    ValueError
        Some of its entries are numbers and some are arrays.
    """
    if not isinstance(score, (list, tuple)):
        return False
    numbers = sum(_is_number(entry) for entry in score)
    if 0 < numbers < len(score):
        raise InputError(f"score is a {type(score).__name__} of both numbers and arrays")
    return numbers == 0


@contextmanager
def naming_case(number: int, cases: int) -> Iterator[None]:
    """Begin the message of what goes wrong inside with the number of the case, if not the only."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if cases == 1:
            raise
        if isinstance(error, TypeError):
            raise TypeError(f"case {number}: {error}") from error
        raise InputError.of(error, case=number) from error


def refuse_iterator(value: Any, name: str) -> None:
    """Raise TypeError for a generator or another iterator."""
    if hasattr(value, "__next__"):
        raise TypeError(
            f"{name} is a {type(value).__name__}, which can be gone through once: pass a list"
        )


def _entries(score: Any, raters: Any, region: Any | None, stacked: bool) -> list[Case]:
    """Return case by case what lies along the first axis, or in the lists."""
    rule = "with stacked=True first axes count cases" if stacked else "lists have an entry per case"
    numbers = [len(_indices(score)), _entry_count(raters, "raters")]
    if region is not None:
        numbers.append(_entry_count(region, "region"))
    if len(set(numbers)) > 1:
        shapes = shape_of(score), shape_of(raters)
        one = None not in shapes and shapes[1][1:] == shapes[0]  # type: ignore[index]
        raise InputError(
            f"there are {numbers[0]} scores but {numbers[1]} sets of raters"
            + ("" if region is None else f" and {numbers[2]} regions")
            + f"; {rule}"
            + ("; if they are one case, pass score as one array" if one else "")
        )
    if numbers[0] == 0:
        raise InputError("score is an empty list or stack: at least one case is needed")
    cases = []
    for k in range(numbers[0]):
        with naming_case(k, numbers[0]):
            masks = rater_list(raters[k]) if stacked else raters[k]
            cases.append((score[k], masks, None if region is None else region[k]))
            check_one_case(score[k], masks)
    return cases


def _fitting_shapes(score: Any, raters: Any, if_stacked: str) -> tuple[Shape, Shape] | None:
    """Return the shapes of arrays that can be one case; None if that is not for shapes to say.

    Raises
    ------
    ValueError
        They cannot be, and it is known what was meant. Other misfits are left to the tallies, which
        name the rater.
    """
    s, r = shape_of(score), shape_of(raters)
    if r == ():
        raise TypeError(
            f"raters is a single {type(raters).__name__}; it must be an array (N, *shape) or a "
            "list of N arrays"
        )
    if s is None:
        raise InputError("score is a list of lists of unequal lengths, which are no array")
    if r is None or r[0] == 0:
        return None
    if r[1:] == s:
        return s, r
    both = _both(s, r)
    if r == s:
        raise InputError(
            f"{both}, but the first axis of raters counts the raters: for one rater pass [raters]"
        )
    if _is_stack(s, r):
        raise InputError(
            f"{both} are not those of one case, but of {_as_stack(s, r)}: {if_stacked}"
        )
    if r[:-1] == s:
        turned = "raters.T" if len(r) == 2 else "numpy.moveaxis(raters, -1, 0)"
        raise InputError(
            f"{both}, but the first axis of raters counts the raters, not the last: pass {turned}"
        )
    if len(s) == 2 and s[1] == 1 and len(r) <= 2 and s[0] in r:
        raise InputError(
            f"{both}: a score has no axis of features; pass score[:, 0], and raters of shape "
            f"(N, {s[0]}), a row for each rater"
        )
    return None


def _is_stack(score: Shape, raters: Shape) -> bool:
    return len(score) > 1 and raters[:1] == score[:1] and raters[2:] == score[1:]


def _may_be_stacked(score: Shape, raters: Shape) -> bool:
    # A stack of one case with one rater is that case with an axis more: the same voxels.
    return score[:1] != (1,) and _is_stack(score, raters)


def _both(score: Shape, raters: Shape) -> str:
    return f"score of shape {score} and raters of shape {raters}"


def _as_stack(score: Shape, raters: Shape) -> str:
    return f"{score[0]} cases of shape {score[1:]} with {raters[1]} raters each"


def _entry_count(value: Any, name: str) -> int:
    if not isinstance(value, (list, tuple)) and not shape_of(value):
        raise TypeError(f"{name} is a {type(value).__name__}; one entry for each case is needed")
    return len(_indices(value))


def _indices(value: Any) -> range:
    shape = (len(value),) if isinstance(value, (list, tuple)) else shape_of(value)
    return range(shape[0] if shape else 0)


def _one_array_each(raters: Any) -> bool:
    return isinstance(raters, (list, tuple)) and not any(
        isinstance(mask, (list, tuple)) for mask in raters
    )


def _holds_arrays(score: Any) -> bool:
    return isinstance(score, (list, tuple)) and any(
        _holds_arrays(entry) if isinstance(entry, (list, tuple)) else not _is_number(entry)
        for entry in score
    )


def _is_number(value: Any) -> bool:
    return shape_of(value) == ()


def shape_of(value: Any) -> Shape | None:
    """Return the shape of an array or of nested lists; None for lists of unequal entries."""
    if isinstance(value, (int, float)):
        return ()
    if isinstance(value, (list, tuple)):
        # None is a rater that a case does not have.
        shapes = {shape_of(entry) for entry in value if entry is not None}
        if not shapes:
            return (0,)
        inner = shapes.pop()
        return None if shapes or inner is None else (len(value), *inner)
    if hasattr(value, "shape"):
        return tuple(int(n) for n in value.shape)
    if hasattr(value, "__cuda_array_interface__"):
        return tuple(int(n) for n in value.__cuda_array_interface__["shape"])
    return tuple(np.shape(value))
