"""The folder of a trained nnU-Net: what it is, read and checked without torch."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct

from twintrack.errors import InputError
from twintrack.files import natural_order, read_record
from twintrack.runs.stamps import read_stamp
from twintrack.volumes.nnunet_files import READERS

PathLike = str | os.PathLike[str]

_Named = Annotated[dict[str, Any] | None, Meta(description="be an object with entries")]


class Dataset(Struct):
    """What is used of ``dataset.json``."""

    labels: Annotated[
        dict[str, int | list[int]],
        Meta(min_length=1, description="be an object of labels: whole numbers or lists of them"),
    ]
    channel_names: _Named = None
    modality: _Named = None


class Plans(Struct):
    """What is used of ``plans.json``."""

    image_reader_writer: Annotated[str, Meta(description="be the name of a reader")] = "SimpleITKIO"


@dataclass(frozen=True)
class TrainedFolder:
    """A trained model's folder.

    Attributes
    ----------
    path
        The folder with ``dataset.json``, ``plans.json`` and ``fold_*``.
    folds
        Its folds that are used: numbers, or "all".
    checkpoint
        File name in each fold.
    labels, channels
        Of ``dataset.json``; of the channels the names.
    regions
        Whether labels are regions that may overlap (nnU-Net's region-based training).
    outputs
        Names of the channels that a network returns: classes from background on, or regions.
    canonical
        Whether images are turned to RAS before the network sees them.
    """

    path: Path
    folds: tuple[int | str, ...]
    checkpoint: str
    labels: Mapping[str, int | list[int]]
    channels: tuple[str, ...]
    regions: bool
    outputs: tuple[str, ...]
    canonical: bool

    @cached_property
    def digests(self) -> dict[str, str]:
        """Digest of every file that is loaded, by its path in the folder.

        By content: a copied folder is the same, one that was trained again is not.
        """
        weights = (f"fold_{fold}/{self.checkpoint}" for fold in self.folds)
        names = ("dataset.json", "plans.json", *weights)
        return {name: read_stamp(self.path / name).digest for name in names}

    def describe(self) -> dict[str, Any]:
        """Return which networks these are, in plain values for a record."""
        return {
            "folder": "/".join(self.path.absolute().parts[-2:]),
            "folds": list(self.folds),
            "checkpoint": self.checkpoint,
            "digests": dict(self.digests),
        }


def inspect_folder(
    path: PathLike,
    folds: Sequence[int | str] | None = None,
    checkpoint: str = "checkpoint_final.pth",
) -> TrainedFolder:
    """Check that a folder holds a trained model and say what it is.

    Parameters
    ----------
    path
        nnU-Net's ``DatasetNNN_NAME/TRAINER__PLANS__CONFIGURATION``.
    folds
        Folds to use; by default every numbered one with the checkpoint, or else ``fold_all``.
    checkpoint
        File name of the weights.

    Raises
    ------
    FileNotFoundError
        The folder, a JSON file of it, a fold or the checkpoint does not exist.
    InputError
        A JSON file is broken or lacks what is needed, images are read in an unknown way, or `folds`
        is no sequence.
    """
    if isinstance(folds, (str, int)):
        raise InputError(f"it is a sequence, such as [{folds!r}]", argument="folds", value=folds)
    path = Path(path)
    if not path.is_dir():
        raise _missing("no such folder; a trained nnU-Net model is needed", path)
    described, planned = path / "dataset.json", path / "plans.json"
    for file in (described, planned):
        if not file.is_file():
            raise _missing(
                "missing; a trained nnU-Net model (…/TRAINER__PLANS__CONFIGURATION) holds "
                "dataset.json, plans.json and fold_*",
                file,
            )
    dataset, reader = read_record(described, Dataset), read_record(planned, Plans)
    if reader.image_reader_writer not in READERS:
        raise InputError(
            f"images are read by {reader.image_reader_writer!r}; supported are "
            f"{', '.join(READERS)}",
            file=planned,
        )
    # Older data sets say "modality", which nnU-Net prefers where both are there.
    channels = dataset.modality or dataset.channel_names
    if not channels:
        raise InputError("channel_names must be an object with entries", file=described)
    regions = any(isinstance(label, list) and len(label) > 1 for label in dataset.labels.values())
    return TrainedFolder(
        path=path,
        folds=_folds(path, folds, checkpoint),
        checkpoint=checkpoint,
        labels=dataset.labels,
        channels=tuple(str(channels[number]) for number in sorted(channels, key=natural_order)),
        regions=regions,
        outputs=_outputs(dataset.labels, regions),
        canonical=READERS[reader.image_reader_writer],
    )


def values_of(label: int | list[int]) -> set[int]:
    """Return the values of a label, which may be a region of several."""
    return set(label) if isinstance(label, list) else {label}


def _outputs(labels: Mapping[str, int | list[int]], regions: bool) -> tuple[str, ...]:
    """Return the names of what a network tells apart, in the order of its channels."""
    values = {name: values_of(label) for name, label in labels.items() if name != "ignore"}
    if regions:  # in the order of the file; the background has no channel
        return tuple(name for name, value in values.items() if value != {0})
    classes = {value: name for name, several in values.items() for value in several}
    return tuple(classes[value] for value in sorted(classes))


def _folds(path: Path, folds: Sequence[int | str] | None, checkpoint: str) -> tuple[int | str, ...]:
    if folds is None:
        there = sorted(file.parent.name for file in path.glob(f"fold_*/{checkpoint}"))
        numbered = (re.fullmatch(r"fold_(\d+)", name) for name in there)
        found = tuple(sorted(int(match[1]) for match in numbered if match))
        if found or "fold_all" in there:
            return found or ("all",)
        others = dict.fromkeys(sorted(entry.name for entry in path.glob("fold_*/*.pth")))
        hint = f"there are {', '.join(others)} (-chk)" if others else "none at all"
        raise _missing(f"no fold has {checkpoint}: {hint}", path)
    if not folds:
        raise InputError("folds is empty; name at least one, or none to use all that there are")
    for fold in folds:
        weights = path / f"fold_{fold}" / checkpoint
        if not weights.is_file():
            raise _missing("no such checkpoint; train the fold first", weights)
    return tuple(folds)


def _missing(what: str, path: Path) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, what, str(path))
