"""PANORAMA, made into the data sets that the coarse and the high-resolution network train on."""

from __future__ import annotations

import functools
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twintrack.datasets.panorama import ANATOMY_LABELS
from twintrack.errors import InputError
from twintrack.files import PLACED_SUFFIXES, natural_order, replacing, split_suffix
from twintrack.nnunet.images import Image, resample_image, resample_labels
from twintrack.nnunet.pipeline import COARSE_SPACING
from twintrack.nnunet.prediction_record import write_json
from twintrack.nnunet.prepared import Fault, Prepared, file_of, message_of, read_predictable
from twintrack.nnunet.roi import RoiRule, find_roi
from twintrack.runs.stamps import FileStamp, read_stamp
from twintrack.version import __version__
from twintrack.volumes import check_same_geometry, read_label_map, write_volume

PathLike = str | os.PathLike[str]

PANCREAS = (ANATOMY_LABELS["PDAC"], ANATOMY_LABELS["parenchyma"], ANATOMY_LABELS["pancreatic duct"])
"""PANORAMA's labels that make up the organ: what the coarse network learns to find."""

_RECORDS = "prepared"  # folder of a data set, which nnU-Net does not look into


def dataset_folder(raw: PathLike, number: int, name: str) -> Path:
    """Return nnU-Net's folder of a raw data set: ``RAW/DatasetNNN_NAME``."""
    if not 1 <= number <= 999:
        raise InputError(f"data set number is {number}; nnU-Net's are 1 to 999")
    if not re.fullmatch(r"\w+", name):
        raise InputError(f"data set name is {name!r}; letters, digits and _ are allowed")
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
        raise InputError(f"at_a_time is {at_a_time}; at least one case is needed")
    if not all(0 < length < math.inf for length in coarse_spacing):
        raise InputError(f"coarse_spacing is {coarse_spacing}; three lengths in mm are needed")
    if coarse == fine:
        raise InputError(f"coarse and fine are both {fine}; nnU-Net tells data sets by number")
    rule = RoiRule(margins=margins, minimum_volume=0.0)
    found = _by_case(Path(images), channel=True)
    annotated: dict[str, Path] = {}
    for folder in labels:
        annotated = {**_by_case(Path(folder), channel=False), **annotated}
    targets = (dataset_folder(raw, coarse, "Pancreas"), dataset_folder(raw, fine, "PDAC"))
    for target in targets:
        for other in target.parent.glob(f"{target.name.partition('_')[0]}_*"):
            if other != target and other.is_dir():
                raise InputError(f"has the number of {target.name}; choose another one", file=other)
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
        raise InputError(f"no case can be used{reason}", file=str(images))
    return Prepared(targets, tuple(used), faults, kept)


def _by_case(folder: Path, channel: bool) -> dict[str, Path]:
    if not folder.is_dir():
        raise FileNotFoundError(2, "no such folder", str(folder))
    found: dict[str, Path] = {}
    for file in folder.iterdir():
        stem, suffix = split_suffix(file.name)
        if suffix in PLACED_SUFFIXES and not stem.startswith("."):
            case = stem.removesuffix("_0000") if channel else stem
            other = found.setdefault(case, file)
            if other != file:
                raise InputError(f"is the same case as {other}; keep one of them", file=file)
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
        return Fault(
            case, file_of(error, image), "unreadable", message_of(error), used=False
        ), False
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
        image = read_predictable(image_file)
        labels = read_label_map(label_file)
    except (OSError, ValueError) as error:
        return Fault(case, file_of(error, image_file), "unreadable", message_of(error), used=False)
    try:
        check_same_geometry(image, labels)
    except ValueError as error:
        kind = "shape" if image.array.shape != labels.array.shape else "header"
        return Fault(case, str(label_file), kind, message_of(error), used=False)
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
