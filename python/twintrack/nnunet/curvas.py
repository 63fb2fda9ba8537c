"""CURVAS–PDACVI, made into the cohort manifest that TwinTrack fits and evaluates on."""

from __future__ import annotations

import csv
import errno
import re
from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from twintrack.cohort import Case, write_manifest
from twintrack.cohort.case import check_name
from twintrack.cohort.score_records import REGIONS
from twintrack.errors import InputError
from twintrack.files import WRITTEN_SUFFIXES, natural_order, replacing
from twintrack.nnunet.prepared import (
    Fault,
    Prepared,
    PrepareJob,
    PublishedCase,
    found,
    message_of,
    prepare_cases,
    read_predictable,
)
from twintrack.nnunet.trained_folder import PathLike
from twintrack.runs.engine import Settings
from twintrack.runs.job import Product
from twintrack.version import __version__
from twintrack.volumes import (
    HEADER_PARTS,
    Volume,
    check_same_geometry,
    read_label_map,
    read_labels,
)


@dataclass(frozen=True)
class CurvasJob(PrepareJob[list[Fault]]):
    """Looks for everything that is wrong with a case.

    Attributes
    ----------
    manifest
        That is going to be written; what is found goes to the store ``NAME.examined`` beside it.
    raters
        Number of raters that every case needs.
    """

    manifest: Path
    raters: int

    kind = "examined"

    @property
    def store(self) -> Path:
        """Folder of the store."""
        return self.manifest.with_name(f"{self.manifest.stem}.examined")

    @property
    def options(self) -> dict[str, Any]:
        """What decides which faults a case has besides its files."""
        return {"twintrack": __version__, "raters": self.raters}

    def read(self, case: PublishedCase) -> list[Fault]:
        """Read one file after the other, and compare it with the image."""
        return _examine(case.files["image"].parent, self.raters)

    def compute(self, loaded: list[Fault]) -> Product:
        """Say what was found."""
        return found(loaded)

    def files(self, case: PublishedCase) -> dict[str, Path]:
        """Return the files that are there."""
        return {role: file for role, file in super().files(case).items() if file.is_file()}


def find_curvas(root: PathLike, raters: int | None = None) -> tuple[list[PublishedCase], int]:
    """Return the cases of a folder in CURVAS–PDACVI's layout, and the raters that each needs.

    Parameters
    ----------
    root
        Folder of ``CASE/image.nii.gz``, ``CASE/annotation_1.nii.gz`` … and, where present, a label
        map of the vessels, ``CASE/*vessel*.nii.gz``.
    raters
        Number of raters every case needs; by default the most that any case has.

    Raises
    ------
    FileNotFoundError
        The folder does not exist or has no case in it.
    InputError
        A case's name is no file name, two files are of one rater, or `raters` is not positive.
    """
    if raters is not None and raters < 1:
        raise InputError(f"raters is {raters}; a case needs at least one")
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(errno.ENOENT, "no such folder", str(root))
    folders = (folder for folder in root.iterdir() if not folder.name.startswith("."))
    annotated = {folder: there for folder in folders if (there := _annotations(folder))}
    if not annotated:
        raise FileNotFoundError(
            errno.ENOENT, "no CASE/annotation_1.nii.gz in this folder", str(root)
        )
    cases = []
    for folder in sorted(annotated, key=lambda folder: natural_order(folder.name)):
        files = {"image": folder / "image.nii.gz"}
        files |= {f"rater_{number}": file for number, file in annotated[folder].items()}
        others = [*sorted(folder.glob("annotation_0.nii*")), *_vessels(folder)]
        files |= {file.name: file for file in others}
        cases.append(PublishedCase(check_name(folder.name, str(root)), files))
    return cases, raters or max(map(len, annotated.values()))


def prepare_curvas(
    root: PathLike,
    manifest: PathLike,
    predictions: PathLike,
    *,
    raters: int | None = None,
    ending: str = ".nii.gz",
    rois: bool = False,
    part: Callable[[list[PublishedCase]], list[PublishedCase]] = list,
    settings: Settings | None = None,
) -> Prepared:
    """Make a cohort manifest of a folder in CURVAS–PDACVI's layout, and list what is wrong with it.

    Parameters
    ----------
    root, raters
        As in `find_curvas`.
    manifest
        CSV file to write. What is wrong goes beside it, to ``NAME_faults.csv``, and what was found
        of each case to the store ``NAME.examined``.
    predictions
        Folder in which ``twintrack predict`` puts, or will put, the scores.
    ending
        Of the scores, and of the regions: ``.nii.gz``, ``.nii`` or ``.mha``.
    rois
        Name the regions of interest of ``twintrack predict --save_roi`` too.
    part
        Returns the cases that this run looks at; all by default. The manifest is written when all
        have been looked at.
    settings
        How to go about it.

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
    InputError
        No case can be used, `ending` is none of the three, or as `find_curvas`.
    StoreError
        The store cannot be written.
    """
    if ending not in WRITTEN_SUFFIXES:
        raise InputError(
            f"it is one of {', '.join(WRITTEN_SUFFIXES)}", argument="ending", value=ending
        )
    target, scores = Path(manifest), Path(predictions)
    cases, wanted = find_curvas(root, raters)
    if not target.parent.is_dir():
        raise FileNotFoundError(
            errno.ENOENT, "no such folder to write the manifest to", str(target.parent)
        )
    made = prepare_cases(CurvasJob(target, wanted), cases, part(cases), settings)
    if made.left:
        return made
    list_of_faults = target.with_name(f"{target.stem}_faults.csv")
    write_faults(list_of_faults, made.faults)
    if not made.cases:
        raise InputError(f"no case can be used; see {list_of_faults}", file=str(root))
    listed = []
    for case in cases:
        if case.name in made.cases:
            vessels = _vessels(case.files["image"].parent)
            score = f"{case.name}{ending}"
            listed.append(
                Case(
                    case.name,
                    scores / score,
                    tuple(case.files[f"rater_{rater}"] for rater in range(1, wanted + 1)),
                    vessels[0] if vessels else None,
                    scores / REGIONS / score if rois else None,
                )
            )
    write_manifest(target, listed)
    return replace(made, outputs=(target, list_of_faults))


def write_faults(path: Path, faults: Iterable[Fault]) -> None:
    """Write faults as CSV, one a row."""
    with replacing(path) as temporary, temporary.open("x", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["case", "file", "kind", "message", "used"])
        for fault in faults:
            writer.writerow([*astuple(fault)[:-1], "yes" if fault.used else "no"])


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
