"""Data sets as they are published, made into what nnU-Net trains on and what TwinTrack fits on."""

from __future__ import annotations

import csv
import functools
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twintrack.cohort import Case, write_manifest
from twintrack.cohort.case import check_name
from twintrack.datasets.phantom import ANATOMY_LABELS
from twintrack.files import natural_order, replacing, split_suffix
from twintrack.nnunet.folder import IMAGE_SUFFIXES
from twintrack.nnunet.images import (
    Image,
    check_finite,
    check_place,
    resample_image,
    resample_labels,
)
from twintrack.nnunet.pipeline import COARSE_SPACING
from twintrack.nnunet.record import write_json
from twintrack.nnunet.roi import RoiRule, find_roi
from twintrack.runs.stamps import FileStamp, read_stamp
from twintrack.version import __version__
from twintrack.volumes import (
    HEADER_PARTS,
    Volume,
    check_same_geometry,
    read_label_map,
    read_labels,
    read_volume,
    write_volume,
)

__all__ = ["Fault", "Prepared", "dataset_folder", "prepare_curvas", "prepare_panorama"]

PathLike = str | os.PathLike[str]

PANCREAS = (ANATOMY_LABELS["PDAC"], ANATOMY_LABELS["parenchyma"], ANATOMY_LABELS["pancreatic duct"])
"""PANORAMA's labels that make up the organ: what the coarse network learns to find."""

_RECORDS = "prepared"  # folder of a data set, which nnU-Net does not look into


@dataclass(frozen=True)
class Fault:
    """Something wrong with a file.

    Attributes
    ----------
    case, file
        Which.
    kind
        "missing", "unreadable", "shape", "header", "empty", "labels" or "dtype".
    message
        What is wrong.
    used
        Whether the case is used all the same.
    """

    case: str
    file: str
    kind: str
    message: str
    used: bool


@dataclass(frozen=True)
class Prepared:
    """What was made.

    Attributes
    ----------
    outputs
        Folders or files written.
    cases
        Names of the cases used.
    faults
        What was found wrong, in the order of the cases.
    kept
        How many of the cases an earlier run had made of the same files.
    """

    outputs: tuple[Path, ...]
    cases: tuple[str, ...]
    faults: list[Fault] = field(default_factory=list)
    kept: int = 0


def dataset_folder(raw: PathLike, number: int, name: str) -> Path:
    """Return nnU-Net's folder of a raw data set: ``RAW/DatasetNNN_NAME``."""
    if not 1 <= number <= 999:
        raise ValueError(f"data set number is {number}; nnU-Net's are 1 to 999")
    if not re.fullmatch(r"\w+", name):
        raise ValueError(f"data set name is {name!r}; letters, digits and _ are allowed")
    return Path(raw) / f"Dataset{number:03d}_{name}"


def prepare_panorama(
    images: PathLike,
    labels: Sequence[PathLike],
    raw: PathLike,
    *,
    coarse: int = 103,
    fine: int = 104,
    coarse_spacing: tuple[float, float, float] = COARSE_SPACING,
    margins: tuple[float, float, float] = RoiRule().margins,
    at_a_time: int = 1,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> Prepared:
    """Make the data sets of the coarse and of the high-resolution network from PANORAMA.

    The coarse one has the whole CT at `coarse_spacing` and the pancreas (PDAC, parenchyma and duct)
    as its one label. The other has the CT's own voxels, cropped to the pancreas and `margins` as
    the pipeline will crop it, and all labels.

    Parameters
    ----------
    images
        Folder of ``CASE_0000.nii.gz``.
    labels
        Folders of ``CASE.nii.gz``; where several have a case, the first counts (PANORAMA's manual
        labels before the automatic ones). Images without labels are left out.
    raw
        nnU-Net's ``nnUNet_raw``.
    coarse, fine
        Numbers of the two data sets.
    coarse_spacing, margins
        As in `twintrack.nnunet.Pipeline`; mm.
    at_a_time
        How many cases are made at a time; each takes 20 bytes a voxel, so 2.6 GB for a CT of
        512 × 512 × 500.
    progress
        Called with case, number of cases done, and number in all.

    Returns
    -------
    prepared
        Cases that cannot be used (corrupt, not finite, another grid, unknown labels, no pancreas)
        are left out and listed. Cases of earlier runs stay in the data sets, so that they can be
        made of several folders. Those of this run are made again, unless ``prepared/CASE.json`` in
        the data set `fine` says that what is there was made of the same files in the same way.

    Raises
    ------
    FileNotFoundError
        A folder does not exist.
    ValueError
        No case can be used, two files of a folder are one case, `raw` has another data set of one
        of the numbers, or an argument is out of range.
    """
    if at_a_time < 1:
        raise ValueError(f"at_a_time is {at_a_time}; at least one case is needed")
    if not all(0 < length < math.inf for length in coarse_spacing):
        raise ValueError(f"coarse_spacing is {coarse_spacing}; three lengths in mm are needed")
    if coarse == fine:
        raise ValueError(f"coarse and fine are both {fine}; nnU-Net tells data sets by number")
    rule = RoiRule(margins=margins, minimum_volume=0.0)
    found = _by_case(Path(images), channel=True)
    annotated: dict[str, Path] = {}
    for folder in labels:
        annotated = {**_by_case(Path(folder), channel=False), **annotated}
    targets = (dataset_folder(raw, coarse, "Pancreas"), dataset_folder(raw, fine, "PDAC"))
    for target in targets:
        for other in target.parent.glob(f"{target.name.partition('_')[0]}_*"):
            if other != target and other.is_dir():
                raise ValueError(f"{other}: has the number of {target.name}; choose another one")
    for target in targets:
        for part in ("imagesTr", "labelsTr"):
            (target / part).mkdir(parents=True, exist_ok=True)
    (targets[1] / _RECORDS).mkdir(exist_ok=True)
    faults = [
        Fault(case, str(file), "missing", "has no labels", used=False)
        for case, file in found.items()
        if case not in annotated
    ]
    cases = [case for case in found if case in annotated]
    used = []
    kept = 0
    work = functools.partial(
        _prepare_unless_done, targets=targets, coarse_spacing=coarse_spacing, rule=rule
    )
    files = ((case, found[case], annotated[case]) for case in cases)
    # Threads: NumPy, SimpleITK and zlib give up the interpreter's lock for what takes the time.
    pool = ThreadPoolExecutor(at_a_time)
    try:
        for number, (case, (fault, done)) in enumerate(
            zip(cases, pool.map(work, files), strict=True)
        ):
            if fault is None:
                used.append(case)
                kept += done
            else:
                faults.append(fault)
                _remove_case(case, targets)
            progress(case, number + 1, len(cases))
    finally:
        pool.shutdown(cancel_futures=True)
    names: Mapping[str, int]
    for target, names in zip(
        targets, ({"background": 0, "pancreas": 1}, ANATOMY_LABELS), strict=True
    ):
        _write_dataset_json(target, names)
    if not used:
        reason = f": {faults[0].file}: {faults[0].message}" if faults else ""
        raise ValueError(f"{images}: no case can be used{reason}")
    return Prepared(targets, tuple(used), faults, kept)


def prepare_curvas(
    cases: PathLike,
    manifest: PathLike,
    predictions: PathLike,
    *,
    raters: int | None = None,
    ending: str = ".nii.gz",
    rois: bool = False,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> Prepared:
    """Make a cohort manifest of a folder in CURVAS–PDACVI's layout, and list what is wrong with it.

    Parameters
    ----------
    cases
        Folder of ``CASE/image.nii.gz``, ``CASE/annotation_1.nii.gz`` … and, where present, a label
        map of the vessels, ``CASE/*vessel*.nii.gz``.
    manifest
        CSV file to write. What is wrong goes beside it, to ``NAME_faults.csv``.
    predictions
        Folder in which ``twintrack predict`` puts, or will put, the scores.
    raters
        Number of raters every case needs; by default the most that any case has.
    ending
        Of the scores, and of the regions: ``.nii.gz``, ``.nii`` or ``.mha``.
    rois
        Name the regions of interest of ``twintrack predict --save_roi`` too.
    progress
        Called with case, number of cases done, and number in all.

    Returns
    -------
    prepared
        Cases with a missing or unreadable file, an image that cannot be predicted, another shape,
        labels other than 0 and 1, or several files of vessels are left out. Faults of the header,
        empty raters and mixed data types are listed, and the cases kept; those with faulty headers
        need ``--ignore-header`` when they are fitted.

    Raises
    ------
    FileNotFoundError
        The folder does not exist or has no case in it, or that of the manifest does not exist.
    ValueError
        No case can be used, a case's name is no file name, two files are of one rater, `raters` is
        not positive, or `ending` is none of the three.
    """
    if ending not in IMAGE_SUFFIXES:
        raise ValueError(f"ending is {ending!r}; it is one of {', '.join(IMAGE_SUFFIXES)}")
    if raters is not None and raters < 1:
        raise ValueError(f"raters is {raters}; a case needs at least one")
    root, target = Path(cases), Path(manifest)
    if not target.parent.is_dir():
        raise FileNotFoundError(2, "no such folder to write the manifest to", str(target.parent))
    if not root.is_dir():
        raise FileNotFoundError(2, "no such folder", str(root))
    names = sorted(
        (f.name for f in root.iterdir() if f.name[0] != "." and _annotations(f)), key=natural_order
    )
    if not names:
        raise FileNotFoundError(2, "no CASE/annotation_1.nii.gz in this folder", str(root))
    for name in names:
        check_name(name, str(root))
    wanted = raters or max(len(_annotations(root / name)) for name in names)
    faults: list[Fault] = []
    listed: list[Case] = []
    for number, name in enumerate(names, start=1):
        of_case = _examine(root / name, wanted)
        faults += of_case
        if all(fault.used for fault in of_case):
            vessels = _vessels(root / name)
            listed.append(
                Case(
                    name,
                    Path(predictions) / f"{name}{ending}",
                    tuple(_annotations(root / name)[rater] for rater in range(1, wanted + 1)),
                    vessels[0] if vessels else None,
                    Path(predictions) / "rois" / f"{name}{ending}" if rois else None,
                )
            )
        progress(name, number, len(names))
    list_of_faults = target.with_name(f"{target.stem}_faults.csv")
    write_faults(list_of_faults, faults)
    if not listed:
        raise ValueError(f"{root}: no case can be used; see {list_of_faults}")
    write_manifest(target, listed)
    return Prepared((target, list_of_faults), tuple(case.name for case in listed), faults)


def write_faults(path: Path, faults: Iterable[Fault]) -> None:
    """Write faults as CSV, one a row."""
    with replacing(path) as temporary, temporary.open("x", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["case", "file", "kind", "message", "used"])
        for fault in faults:
            writer.writerow(
                [fault.case, fault.file, fault.kind, fault.message, "yes" if fault.used else "no"]
            )


def _read_image(file: Path) -> Volume:
    """Read an image that can be predicted."""
    image = read_volume(file)
    check_place(image)
    check_finite(image.array, str(file))
    return image


# --- PANORAMA -----------------------------------------------------------------------------------


def _by_case(folder: Path, channel: bool) -> dict[str, Path]:
    if not folder.is_dir():
        raise FileNotFoundError(2, "no such folder", str(folder))
    found: dict[str, Path] = {}
    for file in folder.iterdir():
        stem, suffix = split_suffix(file.name)
        if suffix in (".nii.gz", ".nii", ".mha") and not stem.startswith("."):
            case = stem.removesuffix("_0000") if channel else stem
            other = found.setdefault(case, file)
            if other != file:
                raise ValueError(f"{file}: is the same case as {other}; keep one of them")
    return {case: found[case] for case in sorted(found, key=natural_order)}


def _prepare_unless_done(
    files: tuple[str, Path, Path],
    targets: tuple[Path, Path],
    coarse_spacing: tuple[float, float, float],
    rule: RoiRule,
) -> tuple[Fault | None, bool]:
    """As `_prepare_case`; and return whether all was there that an earlier run has made."""
    case, image, labels = files
    record = targets[1] / _RECORDS / f"{case}.json"
    settings = {
        "twintrack": __version__,
        "data_sets": [target.name for target in targets],
        "coarse_spacing": list(coarse_spacing),
        "margins": list(rule.margins),
    }
    outputs = [path for target in targets for path in _pair(target, case)]
    if _is_made(record, settings, [image, labels, *outputs]):
        return None, True
    try:
        inputs = [read_stamp(path) for path in (image, labels)]  # what changes from now on is seen
    except (OSError, ValueError) as error:
        file = labels if str(labels) in str(error) else image
        return Fault(case, str(file), "unreadable", _without(file, error), used=False), False
    fault = _prepare_case(case, image, labels, targets, coarse_spacing, rule)
    if fault is None:
        stamps = [*inputs, *map(read_stamp, outputs)]
        write_json(record, {**settings, "files": [stamp.to_json() for stamp in stamps]})
    return fault, False


def _is_made(record: Path, settings: Mapping[str, Any], files: Sequence[Path]) -> bool:
    """Whether a record says that the files are what they were, and made with these settings."""
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        stamps = [FileStamp.from_json(stamp) for stamp in content.pop("files")]
        if content != settings:
            return False
        return all(stamp.matches(path) for stamp, path in zip(stamps, files, strict=True))
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return False  # none, or damaged: made again


def _prepare_case(
    case: str,
    image_file: Path,
    label_file: Path,
    targets: tuple[Path, Path],
    coarse_spacing: tuple[float, float, float],
    rule: RoiRule,
) -> Fault | None:
    """Write a case into both data sets, labels last; return what keeps it from being used.

    What an earlier run has made of it goes first: were this one interrupted, nnU-Net would train on
    labels of another crop.
    """
    try:
        image = _read_image(image_file)
        labels = read_label_map(label_file)
    except (OSError, ValueError) as error:
        file = label_file if str(label_file) in str(error) else image_file
        return Fault(case, str(file), "unreadable", _without(file, error), used=False)
    try:
        check_same_geometry(image, labels)
    except ValueError as error:
        kind = "shape" if image.array.shape != labels.array.shape else "header"
        return Fault(case, str(label_file), kind, _without(label_file, error), used=False)
    known = set(ANATOMY_LABELS.values())
    unknown = sorted(set(np.unique(labels.array).tolist()) - known)
    if unknown:
        message = f"has labels {unknown}; PANORAMA's are 0 to {max(known)}"
        return Fault(case, str(label_file), "labels", message, used=False)
    pancreas = np.isin(labels.array, PANCREAS)
    if not pancreas.any():
        return Fault(case, str(label_file), "empty", "has no pancreas", used=False)

    _remove_case(case, targets)
    assert image.affine is not None  # noqa: S101 - these formats have one
    axes = Image((image.array,), image).patient_axes()
    coarse_target, fine_target = targets
    new = [coarse_spacing[axis] for axis in axes]
    small = resample_image(image.array.T, image.spacing[::-1], new[::-1]).T
    marked = resample_labels(pancreas.T, image.spacing[::-1], new[::-1]).T
    affine = image.affine.copy()
    affine[:3, :3] *= np.asarray(new) / image.spacing
    # Splines overshoot: beside metal, beyond what the type holds.
    limits = np.iinfo(np.int16)
    small = np.rint(small).clip(limits.min, limits.max).astype(np.int16)
    _write_pair(coarse_target, case, small, marked, affine)

    margins = [rule.margins[axis] for axis in axes]
    roi = find_roi(pancreas, (0, 0, 0), (1, 1, 1), image.array.shape, image.spacing, margins, rule)
    assert roi is not None  # noqa: S101 - there is a pancreas of any size
    affine = image.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [part.start for part in roi.box]
    _write_pair(fine_target, case, image.array[roi.box], labels.array[roi.box], affine)
    return None


def _write_pair(
    target: Path,
    case: str,
    image: NDArray[Any],
    labels: NDArray[Any],
    affine: NDArray[np.float64],
) -> None:
    for path, array in zip(_pair(target, case), (image, labels.astype(np.uint8)), strict=True):
        write_volume(path, array, affine)


def _pair(target: Path, case: str) -> tuple[Path, Path]:
    """Where nnU-Net looks for the image of a case and for its labels."""
    return target / "imagesTr" / f"{case}_0000.nii.gz", target / "labelsTr" / f"{case}.nii.gz"


def _remove_case(case: str, targets: Iterable[Path]) -> None:
    """Delete what an earlier run has made of a case."""
    for target in targets:
        (target / _RECORDS / f"{case}.json").unlink(missing_ok=True)
        for path in reversed(_pair(target, case)):
            path.unlink(missing_ok=True)


def _write_dataset_json(target: Path, labels: Mapping[str, int]) -> None:
    content = {
        "channel_names": {"0": "CT"},
        "labels": dict(labels),
        # nnU-Net counts the files and refuses any other number.
        "numTraining": len(_by_case(target / "labelsTr", channel=False)),
        "file_ending": ".nii.gz",
    }
    with replacing(target / "dataset.json") as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


# --- CURVAS–PDACVI ------------------------------------------------------------------------------


def _annotations(folder: Path) -> dict[int, Path]:
    """Return the raters' files by number; the STAPLE consensus is no rater."""
    if not folder.is_dir():
        return {}
    found: dict[int, Path] = {}
    for file in folder.iterdir():
        match = re.fullmatch(r"annotation_0*([1-9]\d*)\.nii(\.gz)?", file.name)
        other = found.setdefault(int(match[1]), file) if match else file
        if other != file:
            raise ValueError(f"{file}: is of the same rater as {other}; keep one of them")
    return dict(sorted(found.items()))


def _vessels(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.glob("*vessel*.nii.gz")) if file.name[0] != "."]


def _examine(folder: Path, raters: int) -> list[Fault]:
    """Return everything wrong with a case."""
    faults: list[Fault] = []

    def fault(file: Path, kind: str, message: str, used: bool) -> None:
        faults.append(Fault(folder.name, file.name, kind, message, used))

    def read(file: Path, reader: Callable[[Path], Volume]) -> Volume | None:
        if not file.is_file():
            fault(file, "missing", "is not there", used=False)
            return None
        try:
            return reader(file)
        except (OSError, ValueError) as error:
            fault(file, "unreadable", _without(file, error), used=False)
            return None

    annotations = _annotations(folder)
    for file in sorted(folder.glob("annotation_0.nii*")):
        fault(file, "labels", "is left out; raters are numbered from 1", used=True)
    image = read(folder / "image.nii.gz", _read_image)
    dtypes: dict[str, list[int]] = {}
    for rater in range(1, raters + 1):
        file = annotations.get(rater, folder / f"annotation_{rater}.nii.gz")
        volume = read(file, read_labels)
        if volume is None:
            continue
        dtypes.setdefault(str(volume.array.dtype), []).append(rater)
        _compare(image, volume, file, fault)
        wrong = np.unique(volume.array[(volume.array != 0) & (volume.array != 1)])
        if wrong.size:
            fault(file, "labels", f"holds {wrong[:5].tolist()}; raters mark 0 or 1", used=False)
        elif not volume.array.any():
            fault(file, "empty", "the rater marks nothing", used=True)
    if len(dtypes) > 1:
        kinds = "; ".join(
            f"{dtype}: rater {', '.join(map(str, numbers))}" for dtype, numbers in dtypes.items()
        )
        fault(folder, "dtype", f"annotations of different types ({kinds})", used=True)
    several = _vessels(folder)
    if len(several) > 1:
        names = ", ".join(file.name for file in several)
        fault(folder, "labels", f"several files of vessels ({names}); keep one", used=False)
    for file in several:
        vessels = read(file, read_label_map)
        if vessels is not None:
            _compare(image, vessels, file, fault)
    return faults


def _compare(
    image: Volume | None, volume: Volume, file: Path, fault: Callable[[Path, str, str, bool], None]
) -> None:
    if image is None:
        return
    try:
        check_same_geometry(image, volume)
    except ValueError as error:
        try:
            check_same_geometry(image, volume, ignore=HEADER_PARTS)
        except ValueError:
            fault(file, "shape", _without(file, error), False)
        else:
            fault(file, "header", _without(file, error), True)


def _without(file: Path, error: Exception) -> str:
    """Return a message without the name of the file it begins with, and its advice."""
    message = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return message.removeprefix(f"{file}: ").split(". If only")[0]
