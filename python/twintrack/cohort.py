"""Which files make up which case, and the arrays of a case ready to be tallied."""

from __future__ import annotations

import bisect
import csv
import errno
import functools
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from twintrack.files import is_file, natural_order, replacing, split_suffix
from twintrack.threads import max_threads
from twintrack.volumes import (
    HEADER_PARTS,
    Volume,
    check_same_geometry,
    read_label_map,
    read_labels,
    read_score,
)

RegionRule = Literal["roi", "box", "all"]

# Preferred first: beside nnU-Net's CASE.npz lies CASE.nii.gz, its segmentation.
_SCORE_SUFFIXES = (".npz", ".nii.gz", ".nii", ".npy", ".mha")

_PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Case:
    """The files of one case.

    Attributes
    ----------
    name
        Unique in its cohort and fit to name a file.
    score
        Tumour probability.
    raters
        One annotation per rater, in the same order in every case.
    vessels
        Label map of the vessels, or None.
    roi
        Mask of the voxels that count under the rule "roi", or None.
    """

    name: str
    score: Path
    raters: tuple[Path, ...]
    vessels: Path | None = None
    roi: Path | None = None


@dataclass(frozen=True, eq=False)
class LoadedCase:
    """The arrays of one case, all of the shape (x, y, z) of its score.

    Attributes
    ----------
    case
        Where they come from.
    score
        Tumour probability with its geometry; floating point.
    raters
        One annotation per rater, in the dtype of its file.
    region
        Boolean mask of the voxels that count; None for all of them.
    vessels
        uint8 label map, or None.
    """

    case: Case
    score: Volume
    raters: list[NDArray[Any]]
    region: NDArray[np.bool_] | None
    vessels: NDArray[np.uint8] | None


def read_manifest(path: _PathLike) -> list[Case]:
    """Read a cohort from a CSV file.

    The first row names the columns: ``case``, ``score``, ``rater_1`` … ``rater_N`` and, if wanted,
    ``vessels`` and ``roi``, in any order. Every further row is a case. Paths are relative to the
    manifest's folder or absolute. All cases need all raters; ``vessels`` and ``roi`` may be empty.
    The file is UTF-8 with commas; a byte order mark and any line ends are accepted.

    Raises
    ------
    FileNotFoundError
        The manifest, or a file named in it; the message names row and column.
    ValueError
        No cases, unknown, repeated or missing columns, a repeated or unusable case name, a rater
        missing in a case, one file given for two raters; the message names row and column.
    """
    path = Path(path)
    try:
        reader = csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""))
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(row)]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error}); save it as 'CSV UTF-8'") from error
    except csv.Error as error:
        raise ValueError(f"{path}: row {reader.line_num}: {error}") from error
    if len(rows) < 2:
        raise ValueError(f"{path}: no cases; it needs a header row and a row for each case")

    columns = rows[0][1]
    rater_columns = _check_columns(path, columns)
    cases: dict[str, Case] = {}
    missing: list[str] = []
    for number, cells in rows[1:]:
        place = f"{path}: row {number}"
        if len(cells) != len(columns):
            raise ValueError(f"{place} has {len(cells)} cells, its header has {len(columns)}")
        row = dict(zip(columns, cells, strict=True))
        name = _check_name(row["case"], place)
        if name in cases:
            raise ValueError(f"{place}: case {name!r} appears twice")
        for column in ("score", *rater_columns):
            if not row[column]:
                raise ValueError(f"{place}, column {column!r}: no file for case {name!r}")
        files = {
            column: path.parent / cell for column, cell in row.items() if cell and column != "case"
        }
        missing += [
            f"{place}, column {column!r}: {file}"
            for column, file in files.items()
            if not is_file(file)
        ]
        raters = tuple(files[column] for column in rater_columns)
        if len(set(raters)) < len(raters):
            raise ValueError(f"{place}: case {name!r} has the same file for two raters")
        cases[name] = Case(name, files["score"], raters, files.get("vessels"), files.get("roi"))
    if missing:
        raise _not_found(missing)
    return list(cases.values())


def write_manifest(path: _PathLike, cases: Iterable[Case]) -> None:
    """Write a cohort as a CSV file that `read_manifest` reads back.

    Files inside the manifest's folder are written relative to it, so that the folder can be moved
    as a whole; others keep their absolute path.

    Raises
    ------
    ValueError
        No cases, a repeated case name, or cases with different numbers of raters.
    OSError
        Writing failed; an existing manifest is unharmed.
    """
    path = Path(path)
    folder = path.parent.absolute()
    cases = list(cases)
    if not cases:
        raise ValueError(f"{path}: no cases to write")
    _check_same_raters(
        {case.name: tuple(str(k + 1) for k in range(len(case.raters))) for case in cases}
    )
    if len({case.name for case in cases}) < len(cases):
        raise ValueError(f"{path}: two cases have the same name")

    def cell(file: Path | None) -> str:
        if file is None:
            return ""
        file = file.absolute()
        return (file.relative_to(folder) if file.is_relative_to(folder) else file).as_posix()

    raters = [f"rater_{k + 1}" for k in range(len(cases[0].raters))]
    with replacing(path) as temporary, temporary.open("x", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["case", "score", *raters, "vessels", "roi"])
        for case in cases:
            files = (case.score, *case.raters, case.vessels, case.roi)
            writer.writerow([_check_name(case.name, str(path)), *map(cell, files)])


def read_folders(
    cases_dir: _PathLike,
    predictions_dir: _PathLike,
    raters: str = "{case}/annotation_{k}.nii.gz",
    vessels: str | None = "{case}/*vessel*.nii.gz",
    roi: str | None = "{case}/roi.nii.gz",
) -> list[Case]:
    """Find a cohort in a folder of annotations and a folder of predictions.

    The predictions decide which cases there are: every ``CASE.npz`` (nnU-Net's probabilities) or,
    where there is none, ``CASE.nii.gz``, ``.nii``, ``.npy`` or ``.mha`` is one. So a validation
    fold is a cohort of its own. Annotated cases without a prediction are left out.

    Parameters
    ----------
    cases_dir
        Folder that holds the annotations, CURVAS layout by default.
    predictions_dir
        Folder that holds the scores.
    raters, vessels, roi
        Where to look, relative to `cases_dir`. ``{case}`` is the case's name; ``{k}`` the rater's
        number, ``{k:02d}`` with leading zeros; ``*`` any text. A pattern without ``{case}`` is
        meant inside the case's own folder. Raters are ordered naturally (2 before 10), and a
        STAPLE consensus is no rater. `vessels` and `roi` may find no file. For example
        ``"labelsTr/{case}_ann{k}.nii.gz"`` or ``"{case}_{k:02d}.nii.gz"``.

    Raises
    ------
    FileNotFoundError
        One of the folders does not exist, or a prediction has no annotations.
    ValueError
        No predictions, a rater missing in one case, or several files where one is meant.
    """
    cases_dir, predictions_dir = Path(cases_dir), Path(predictions_dir)
    scores = find_scores(predictions_dir)

    @functools.cache
    def listing(folder: Path) -> list[str]:
        return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []

    def find(pattern: str, case: str) -> dict[str, Path]:
        """Return the files that match, in natural order of what the wildcards stand for."""
        found = {"": cases_dir}
        for component in _components(pattern):
            prefix, regex = _compile(component, case)
            found = {
                key + "".join(match.groups()): folder / name
                for key, folder in found.items()
                for name in _starting_with(listing(folder), prefix)
                if (match := regex.fullmatch(name)) and (prefix or not name.startswith("."))
            }
        return dict(sorted(found.items(), key=lambda item: natural_order(item[0])))

    def find_one(pattern: str | None, case: str) -> Path | None:
        found = list(find(pattern, case).values()) if pattern else []
        if len(found) > 1:
            names = ", ".join(file.name for file in found)
            raise ValueError(f"case {case!r}: {pattern!r} finds several files: {names}")
        return found[0] if found else None

    found_raters = {
        name: {k: file for k, file in find(raters, name).items() if "staple" not in k.lower()}
        for name in scores
    }
    missing = [
        f"case {name!r}: {cases_dir / raters.replace('{case}', name)}"
        for name, files in found_raters.items()
        if not files
    ]
    if missing:
        raise _not_found(missing)
    _check_same_raters({name: tuple(files) for name, files in found_raters.items()})
    return [
        Case(
            name,
            score,
            tuple(found_raters[name].values()),
            find_one(vessels, name),
            find_one(roi, name),
        )
        for name, score in scores.items()
    ]


def find_scores(folder: _PathLike) -> dict[str, Path]:
    """Return the score file of each case in a folder of predictions, in natural order of the names.

    Where a case has several, ``CASE.npz`` (nnU-Net's probabilities, beside which lies its
    segmentation, ``CASE.nii.gz``) comes before ``CASE.nii.gz``, ``.nii``, ``.npy`` and ``.mha``.

    Raises
    ------
    FileNotFoundError
        The folder does not exist.
    ValueError
        There is no score in it.
    """
    folder = Path(folder)
    found: dict[str, dict[str, Path]] = {}
    for file in folder.iterdir():
        stem, suffix = split_suffix(file.name)
        if suffix in _SCORE_SUFFIXES and not stem.startswith("."):
            found.setdefault(stem, {})[suffix] = file
    if not found:
        raise ValueError(f"{folder}: no predictions ({', '.join(_SCORE_SUFFIXES)}) here")
    return {
        case: next(found[case][suffix] for suffix in _SCORE_SUFFIXES if suffix in found[case])
        for case in sorted(found, key=natural_order)
    }


def annotated_box(raters: Sequence[NDArray[Any]], margin: int = 20) -> tuple[slice, slice, slice]:
    """Return the box in which the benchmark measures calibration.

    It is the bounding box of the union of all annotations, grown by `margin` voxels on every side
    and clamped to the volume: ``slice(max(first - margin, 0), min(last + margin + 1, length))``
    along each axis. The official evaluator stops at ``last + margin``, one voxel short, and does
    not clamp the start, so that its box is usually empty when a tumour is near the low border.

    Parameters
    ----------
    raters
        Annotations of one shape (x, y, z); whatever is not 0 is marked.
    margin
        In voxels.

    Raises
    ------
    ValueError
        No rater marks any voxel, or the shapes differ.
    """
    if not raters:
        raise ValueError("no raters, so there is no annotated box")
    shape = raters[0].shape
    marked = [np.zeros(length, np.bool_) for length in shape]
    for number, rater in enumerate(raters, start=1):
        if rater.shape != shape:
            raise ValueError(f"rater {number} has shape {rater.shape}, rater 1 has {shape}")
        slow, middle, fast = sorted(range(3), key=lambda axis: -abs(rater.strides[axis]))
        for index, slab in enumerate(rater.transpose(slow, middle, fast)):
            if slab.any():
                marked[slow][index] = True
                marked[middle] |= slab.any(axis=1)
                marked[fast] |= slab.any(axis=0)
    if not marked[0].any():
        raise ValueError("no rater marks any voxel, so there is no annotated box")
    bounds = [np.flatnonzero(axis)[[0, -1]].tolist() for axis in marked]
    x, y, z = (
        slice(max(first - margin, 0), min(last + margin + 1, length))
        for (first, last), length in zip(bounds, shape, strict=True)
    )
    return x, y, z


def load_case(
    case: Case,
    region_rule: RegionRule,
    ignore_header: bool = False,
    tumour: Sequence[int] = (1,),
) -> LoadedCase:
    """Read the files of a case and check that they lie on one grid.

    Parameters
    ----------
    case
        Files to read.
    region_rule
        Which voxels count: "roi" (the mask of the case), "box" (`annotated_box`) or "all".
    ignore_header
        Compare the shapes only, for files whose voxels correspond though their headers differ.
    tumour
        Classes to add up where the score is an ``.npz`` of class probabilities.

    Raises
    ------
    FileNotFoundError, ValueError, OSError
        A file is missing, corrupt or on another grid, the rule is "roi" and there is no mask (or
        it is empty, or not 0/1), or the rule is "box" and no rater marks any voxel. The message
        names the file or the case.
    """
    if region_rule not in get_args(RegionRule):
        raise ValueError(f"region_rule={region_rule!r}: choose one of {get_args(RegionRule)}")
    if region_rule == "roi" and case.roi is None:
        raise ValueError(
            f"case {case.name!r}: region rule 'roi' needs a mask; name its file in the manifest's "
            "column 'roi', or choose the rule 'box' or 'all'"
        )
    readers = [functools.partial(read_score, case.score, tumour)]
    readers += [functools.partial(read_labels, file) for file in case.raters]
    if case.vessels:
        readers.append(functools.partial(read_label_map, case.vessels))
    if case.roi and region_rule == "roi":
        readers.append(functools.partial(read_labels, case.roi))
    volumes = _read_all(readers)
    score, raters = volumes[0], volumes[1 : 1 + len(case.raters)]
    vessels = volumes[1 + len(raters)] if case.vessels else None
    roi = volumes[-1] if case.roi and region_rule == "roi" else None

    reference = next((volume for volume in volumes if volume.affine is not None), score)
    for volume in volumes:
        check_same_geometry(reference, volume, ignore=HEADER_PARTS if ignore_header else ())

    arrays = [volume.array for volume in raters]
    region: NDArray[np.bool_] | None = None
    if roi:
        region = _as_mask(roi)
    elif region_rule == "box":
        try:
            box = annotated_box(arrays)
        except ValueError as error:
            raise ValueError(f"case {case.name!r}: {error}") from error
        # numpy.zeros takes no memory for the pages outside the box.
        order: Literal["F", "C"] = "F" if score.array.flags.f_contiguous else "C"
        region = np.zeros(score.array.shape, np.bool_, order)
        region[box] = True
    return LoadedCase(case, score, arrays, region, vessels.array if vessels else None)


def _read_all(readers: Sequence[Callable[[], Volume]]) -> list[Volume]:
    """Call every reader, several at a time; of several errors the first in order is raised.

    Inflating takes the time, and gives up the lock of the interpreter.
    """
    threads = min(max_threads(), len(readers))
    if threads == 1:
        return [read() for read in readers]
    with ThreadPoolExecutor(threads) as pool:
        started = [pool.submit(read) for read in readers]
        try:
            return [volume.result() for volume in started]
        finally:
            pool.shutdown(cancel_futures=True)


def _as_mask(volume: Volume) -> NDArray[np.bool_]:
    array = volume.array
    mask: NDArray[np.bool_] = array.astype(np.bool_, copy=False)
    if not np.array_equal(array, mask):
        i, j, k = (int(index) for index in np.argwhere(array != mask)[0])
        raise ValueError(f"{volume}: voxel ({i}, {j}, {k}) is {array[i, j, k]}; a mask is 0 or 1")
    if not mask.any():
        raise ValueError(f"{volume}: the mask is empty, so no voxel would count")
    return mask


def _check_columns(path: Path, columns: list[str]) -> list[str]:
    """Return the rater columns in order."""
    if len(columns) == 1 and (";" in columns[0] or "\t" in columns[0]):
        raise ValueError(f"{path}: separated by semicolons or tabs; save it with commas")
    raters = sorted((c for c in columns if re.fullmatch(r"rater_\d+", c)), key=natural_order)
    for column in columns:
        if column not in {"case", "score", "vessels", "roi", *raters}:
            raise ValueError(
                f"{path}: unknown column {column!r}; known are case, score, rater_1, rater_2, …, "
                "vessels and roi"
            )
        if columns.count(column) > 1:
            raise ValueError(f"{path}: column {column!r} appears twice")
    wanted = ["case", "score", *(f"rater_{k + 1}" for k in range(max(1, len(raters))))]
    for column in wanted:
        if column not in columns:
            raise ValueError(f"{path}: column {column!r} is missing; it has {', '.join(columns)}")
    return raters


def _check_name(name: str, place: str) -> str:
    """Return `name` if it can name an output file in the folder it is meant for."""
    if not name or name.startswith(".") or not name.isprintable() or set(name) & set("/\\"):
        raise ValueError(f"{place}: case name {name!r} cannot be used as a file name")
    return name


def _check_same_raters(raters: dict[str, tuple[str, ...]]) -> None:
    """Raise if not every case has every rater that some case has."""
    everyone = sorted(
        {rater for present in raters.values() for rater in present}, key=natural_order
    )
    for case, present in raters.items():
        absent = [rater for rater in everyone if rater not in present]
        if absent:
            raise ValueError(
                f"case {case!r} has {len(present)} raters ({', '.join(present)}), but other cases "
                f"also have {', '.join(absent)}; all cases need the same raters"
            )


def _not_found(places: list[str]) -> FileNotFoundError:
    shown = "\n  ".join(places[:10] + ["…"] * (len(places) > 10))
    return FileNotFoundError(errno.ENOENT, f"{len(places)} missing:\n  {shown}")


def _components(pattern: str) -> list[str]:
    return (pattern if "{case}" in pattern else "{case}/" + pattern).split("/")


def _compile(component: str, case: str) -> tuple[str, re.Pattern[str]]:
    """Return what a matching name starts with, and the expression that it matches."""
    prefix, regex, wild = "", "", False
    for part in re.split(r"(\{[^}]*\}|\*)", component):
        number = re.fullmatch(r"\{k(?::0(\d)d)?\}", part)
        if number or part == "*":
            wild = True
            regex += rf"(\d{{{number[1] or 1},}})" if number else "(.*)"
            continue
        if part.startswith("{") and part != "{case}":
            raise ValueError(f"{component!r}: {part} is not one of {{case}}, {{k}} and {{k:02d}}")
        literal = case if part == "{case}" else part
        regex += re.escape(literal)
        prefix += "" if wild else literal
    return prefix, re.compile(regex)


def _starting_with(names: list[str], prefix: str) -> Iterator[str]:
    """Yield those of the sorted `names` that start with `prefix`, without looking at the rest."""
    for index in range(bisect.bisect_left(names, prefix), len(names)):
        if not names[index].startswith(prefix):
            return
        yield names[index]
