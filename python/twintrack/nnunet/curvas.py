"""CURVAS–PDACVI, made into the cohort manifest that TwinTrack fits and evaluates on."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from twintrack.cohort import Case, write_manifest
from twintrack.cohort.case import check_name
from twintrack.errors import InputError
from twintrack.files import WRITTEN_SUFFIXES, natural_order, replacing
from twintrack.nnunet.prepared import Fault, Prepared, message_of, read_predictable
from twintrack.volumes import (
    HEADER_PARTS,
    Volume,
    check_same_geometry,
    read_label_map,
    read_labels,
)

PathLike = str | os.PathLike[str]


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
    if ending not in WRITTEN_SUFFIXES:
        raise InputError(
            f"it is one of {', '.join(WRITTEN_SUFFIXES)}", argument="ending", value=ending
        )
    if raters is not None and raters < 1:
        raise InputError(f"raters is {raters}; a case needs at least one")
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
        raise InputError(f"no case can be used; see {list_of_faults}", file=root)
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


def _annotations(folder: Path) -> dict[int, Path]:
    """Return the raters' files by number; the STAPLE consensus is no rater."""
    if not folder.is_dir():
        return {}
    found: dict[int, Path] = {}
    for file in folder.iterdir():
        match = re.fullmatch(r"annotation_0*([1-9]\d*)\.nii(\.gz)?", file.name)
        other = found.setdefault(int(match[1]), file) if match else file
        if other != file:
            raise InputError(f"is of the same rater as {other}; keep one of them", file=file)
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
            fault(file, "unreadable", message_of(error), used=False)
            return None

    annotations = _annotations(folder)
    for file in sorted(folder.glob("annotation_0.nii*")):
        fault(file, "labels", "is left out; raters are numbered from 1", used=True)
    image = read(folder / "image.nii.gz", read_predictable)
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
            fault(file, "shape", message_of(error), False)
        else:
            fault(file, "header", message_of(error), True)
