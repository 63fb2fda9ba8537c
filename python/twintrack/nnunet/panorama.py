"""PANORAMA, made into the data sets that the coarse and the high-resolution network train on."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twintrack.datasets.panorama import ANATOMY_LABELS
from twintrack.errors import InputError
from twintrack.files import PLACED_SUFFIXES, natural_order, split_suffix
from twintrack.nnunet.images import Image, resample_image, resample_labels
from twintrack.nnunet.pipeline import COARSE_SPACING, check_spacing
from twintrack.nnunet.prediction_record import write_json
from twintrack.nnunet.prepared import (
    Fault,
    Prepared,
    PrepareJob,
    PublishedCase,
    file_of,
    found,
    message_of,
    prepare_cases,
    read_predictable,
)
from twintrack.nnunet.roi import RoiRule, find_roi
from twintrack.nnunet.trained_folder import PathLike
from twintrack.runs.engine import Settings
from twintrack.runs.job import Product
from twintrack.runs.memory import count_voxels
from twintrack.runs.records import Entry
from twintrack.runs.store import Store
from twintrack.version import __version__
from twintrack.volumes import Volume, check_same_geometry, read_label_map, write_volume

PANCREAS = (ANATOMY_LABELS["PDAC"], ANATOMY_LABELS["parenchyma"], ANATOMY_LABELS["pancreatic duct"])
"""PANORAMA's labels that make up the organ: what the coarse network learns to find."""

STORE = "prepared"
"""Folder of the store in the data set of the members, which nnU-Net does not look into."""

_LABELS: tuple[Mapping[str, int], ...] = ({"background": 0, "pancreas": 1}, ANATOMY_LABELS)


def dataset_folder(raw: PathLike, number: int, name: str) -> Path:
    """Return nnU-Net's folder of a raw data set: ``RAW/DatasetNNN_NAME``."""
    if not 1 <= number <= 999:
        raise InputError(f"data set number is {number}; nnU-Net's are 1 to 999")
    if not re.fullmatch(r"\w+", name):
        raise InputError(f"data set name is {name!r}; letters, digits and _ are allowed")
    return Path(raw) / f"Dataset{number:03d}_{name}"


@dataclass(eq=False)
class Annotated:
    """A case that is made: read, or what keeps it from being used, and what comes of it by role."""

    image: Volume | None = None
    labels: Volume | None = None
    faults: list[Fault] = field(default_factory=list)
    made: dict[str, tuple[NDArray[Any], NDArray[np.float64]]] = field(default_factory=dict)


@dataclass(frozen=True)
class PanoramaJob(PrepareJob[Annotated]):
    """Makes a case of the data sets of the coarse and of the high-resolution network.

    The coarse one has the whole CT at `coarse_spacing` and the pancreas (PDAC, parenchyma and duct)
    as its one label. The other has the CT's own voxels, cropped to the pancreas and `margins` as
    the pipeline will crop it, and all labels.

    Parameters
    ----------
    raw
        nnU-Net's ``nnUNet_raw``.
    coarse, fine
        Numbers of the two data sets.
    coarse_spacing, margins
        As in `twintrack.nnunet.Pipeline`; mm.

    Raises
    ------
    InputError
        `raw` has another data set of one of the numbers, or an argument is out of range.
    """

    raw: Path
    coarse: int = 103
    fine: int = 104
    coarse_spacing: tuple[float, float, float] = COARSE_SPACING
    margins: tuple[float, float, float] = RoiRule().margins

    kind = "prepared"

    def __post_init__(self) -> None:
        check_spacing(self.coarse_spacing)
        if self.coarse == self.fine:
            raise InputError(
                f"coarse and fine are both {self.fine}; nnU-Net tells data sets by number"
            )
        _ = self.rule
        for target in self.targets:
            for other in target.parent.glob(f"{target.name.partition('_')[0]}_*"):
                if other != target and other.is_dir():
                    raise InputError(
                        f"has the number of {target.name}; choose another one", file=other
                    )

    @property
    def targets(self) -> tuple[Path, Path]:
        """Folders of the two data sets."""
        return (
            dataset_folder(self.raw, self.coarse, "Pancreas"),
            dataset_folder(self.raw, self.fine, "PDAC"),
        )

    @property
    def rule(self) -> RoiRule:
        """How a CT is cropped: to a pancreas of any size."""
        return RoiRule(margins=self.margins, minimum_volume=0.0)

    @property
    def store(self) -> Path:
        """Folder of the store."""
        return self.targets[1] / STORE

    @property
    def options(self) -> dict[str, Any]:
        """What decides the data sets besides the files."""
        return {
            "twintrack": __version__,
            "data_sets": [target.name for target in self.targets],
            "coarse_spacing": list(self.coarse_spacing),
            "margins": list(self.margins),
        }

    def places(self, case: str) -> dict[str, Path]:
        """Return where nnU-Net looks for image and labels of a case; labels last."""
        return {
            f"{part}_{number}": target / part / f"{case}{end}.nii.gz"
            for number, target in enumerate(self.targets)
            for part, end in (("imagesTr", "_0000"), ("labelsTr", ""))
        }

    def memory(self, case: PublishedCase) -> int:
        """Estimate the memory of a case by what a CT of 512 x 512 x 500 was measured to take."""
        return 20 * count_voxels(case.files["image"]) if super().memory(case) else 0

    def read(self, case: PublishedCase) -> Annotated:
        """Read image and labels, and find out whether they can be used."""
        files = case.files
        try:
            image = read_predictable(files["image"])
            labels = read_label_map(files["labels"])
        except (OSError, ValueError) as error:
            file = file_of(error, files["image"])
            return Annotated(faults=[Fault(case.name, file, "unreadable", message_of(error))])
        known = set(ANATOMY_LABELS.values())
        unknown = sorted(set(np.unique(labels.array).tolist()) - known)
        kind = message = ""
        try:
            check_same_geometry(image, labels)
        except ValueError as error:
            kind = "shape" if image.array.shape != labels.array.shape else "header"
            message = message_of(error)
        if not kind and unknown:
            kind, message = "labels", f"has labels {unknown}; PANORAMA's are 0 to {max(known)}"
        if not kind and not np.isin(labels.array, PANCREAS).any():
            kind, message = "empty", "has no pancreas"
        if kind:
            return Annotated(faults=[Fault(case.name, str(files["labels"]), kind, message)])
        return Annotated(image, labels)

    def compute(self, loaded: Annotated) -> Product:
        """Resample for the coarse network and crop for the members."""
        image, labels = loaded.image, loaded.labels
        if image is None or labels is None:
            return found(loaded.faults)
        assert image.affine is not None  # noqa: S101 - these formats have one
        pancreas = np.isin(labels.array, PANCREAS)
        axes = Image((image.array,), image).patient_axes()
        new = [self.coarse_spacing[axis] for axis in axes]
        small = resample_image(image.array.T, image.spacing[::-1], new[::-1]).T
        marked = resample_labels(pancreas.T, image.spacing[::-1], new[::-1]).T
        affine = image.affine.copy()
        affine[:3, :3] *= np.asarray(new) / image.spacing
        # Splines overshoot: beside metal, beyond what the type holds.
        limits = np.iinfo(np.int16)
        small = np.rint(small).clip(limits.min, limits.max).astype(np.int16)
        loaded.made |= {"imagesTr_0": (small, affine), "labelsTr_0": (marked, affine)}

        margins = [self.margins[axis] for axis in axes]
        shape = image.array.shape
        roi = find_roi(pancreas, (0, 0, 0), (1, 1, 1), shape, image.spacing, margins, self.rule)
        assert roi is not None  # noqa: S101 - there is a pancreas of any size
        affine = image.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ [part.start for part in roi.box]
        loaded.made |= {
            "imagesTr_1": (image.array[roi.box], affine),
            "labelsTr_1": (labels.array[roi.box], affine),
        }
        return found((), image.array.size)

    def write(
        self, case: PublishedCase, loaded: Annotated, store: Store
    ) -> dict[str, tuple[str, Path]]:
        """Write into the staging folder.

        What an earlier run has made of the case goes before anything takes its place: were this one
        interrupted, nnU-Net would train on labels of another crop.
        """
        written = {}
        for role, (array, affine) in loaded.made.items():
            place = self.places(case.name)[role]
            written[role] = f"{role}_{place.name}", place
            stored = array.astype(np.uint8) if role.startswith("labels") else array
            write_volume(store.staged(written[role][0]), stored, affine)
        self.remove(case.name)
        return written

    def written(self, case: PublishedCase, entry: Entry) -> bool:
        """Whether the files of a case that can be used are as they were written."""
        made = not entry.result["faults"]
        return super().written(case, entry) and (not made or entry.is_at(self.places(case.name)))

    def remove(self, case: str) -> None:
        """Delete what there is of a case."""
        for place in reversed(self.places(case).values()):
            place.unlink(missing_ok=True)


def find_panorama(
    images: PathLike, labels: Sequence[PathLike]
) -> tuple[list[PublishedCase], list[Fault]]:
    """Return the cases of PANORAMA, and a fault for each image without labels, which is left out.

    Parameters
    ----------
    images
        Folder of ``CASE_0000.nii.gz``.
    labels
        Folders of ``CASE.nii.gz``; where several have a case, the first counts (PANORAMA's manual
        labels before the automatic ones).

    Raises
    ------
    FileNotFoundError
        A folder does not exist.
    InputError
        Two files of a folder are one case.
    """
    taken = _by_case(Path(images), channel=True)
    annotated: dict[str, Path] = {}
    for folder in labels:
        annotated = {**_by_case(Path(folder), channel=False), **annotated}
    cases = [
        PublishedCase(case, {"image": file, "labels": annotated[case]})
        for case, file in taken.items()
        if case in annotated
    ]
    missing = [
        Fault(case, str(file), "missing", "has no labels")
        for case, file in taken.items()
        if case not in annotated
    ]
    return cases, missing


def prepare_panorama(
    images: PathLike,
    labels: Sequence[PathLike],
    job: PanoramaJob,
    *,
    part: Callable[[list[PublishedCase]], list[PublishedCase]] = list,
    settings: Settings | None = None,
) -> Prepared:
    """Make the data sets of the coarse and of the high-resolution network from PANORAMA.

    Parameters
    ----------
    images, labels
        As in `find_panorama`.
    job
        What is made, and where.
    part
        Returns the cases that this run does; all by default.
    settings
        How to go about it.

    Returns
    -------
    prepared
        Cases that cannot be used (corrupt, not finite, another grid, unknown labels, no pancreas)
        are left out and listed. Cases of earlier runs stay in the data sets, so that they can be
        made of several folders. Those of this run are made again, unless the store says that what
        is there was made of the same files in the same way.

    Raises
    ------
    FileNotFoundError
        A folder does not exist.
    InputError
        No case can be used, or two files of a folder are one case.
    StoreError
        The data sets cannot be written.
    """
    cases, faults = find_panorama(images, labels)
    for place in job.places("").values():
        place.parent.mkdir(parents=True, exist_ok=True)
    made = prepare_cases(job, cases, part(cases), settings)
    for fault in made.faults:
        job.remove(fault.case)
    faults += made.faults
    for target, names in zip(job.targets, _LABELS, strict=True):
        _write_dataset_json(target, names)
    if not made.cases and not made.left:
        reason = f": {faults[0].file}: {faults[0].message}" if faults else ""
        raise InputError(f"no case can be used{reason}", file=str(images))
    return replace(made, outputs=job.targets, faults=faults)


def _by_case(folder: Path, channel: bool) -> dict[str, Path]:
    if not folder.is_dir():
        raise FileNotFoundError(errno.ENOENT, "no such folder", str(folder))
    found: dict[str, Path] = {}
    for file in folder.iterdir():
        stem, suffix = split_suffix(file.name)
        if suffix in PLACED_SUFFIXES and not stem.startswith("."):
            case = stem.removesuffix("_0000") if channel else stem
            other = found.setdefault(case, file)
            if other != file:
                raise InputError(f"is the same case as {other}; keep one of them", file=file)
    return {case: found[case] for case in sorted(found, key=natural_order)}


def _write_dataset_json(target: Path, labels: Mapping[str, int]) -> None:
    content = {
        "channel_names": {"0": "CT"},
        "labels": dict(labels),
        # nnU-Net counts the files and refuses any other number.
        "numTraining": len(_by_case(target / "labelsTr", channel=False)),
        "file_ending": ".nii.gz",
    }
    place = target / "dataset.json"
    # One that is as it was stays so: the data set would be planned and preprocessed again.
    if not place.is_file() or json.loads(place.read_text(encoding="utf-8")) != content:
        write_json(place, content)
