"""What the files that nnU-Net leaves beside its class probabilities tell of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct

from twintrack.errors import InputError
from twintrack.files import PLACED_SUFFIXES, read_record, split_suffix

READERS: Mapping[str, bool] = {
    "SimpleITKIO": False,
    "SimpleITKIOWithReorient": True,
    "NibabelIO": False,
    "NibabelIOWithReorient": True,
}
"""Whether a reader of nnU-Net turns volumes to RAS; without it arrays keep the file's axes."""

# Readers of files that say nothing of the patient's axes; they keep the order of the file.
_PICTURE_READERS = ("Tiff3DIO", "NaturalImage2DIO")
_PICTURE_ENDINGS = (".tif", ".tiff", ".png", ".bmp")


class _Plans(Struct):
    image_reader_writer: Any = None


class _Dataset(Struct):
    overwrite_image_reader_writer: Any = None
    file_ending: Annotated[str | None, Meta(description="be a text")] = None


class _Labels(Struct):
    labels: Annotated[dict[str, Any], Meta(description="be an object")]
    regions_class_order: Any = None


@dataclass(frozen=True)
class Reader:
    """How nnU-Net read the image of some class probabilities, and so the order of their axes.

    Attributes
    ----------
    turns
        Whether it turned the image to RAS. If not, the axes are those of the file.
    pictures
        Whether it reads TIFF or other pictures, of which TwinTrack reads none.
    named
        Who says so, for messages.
    """

    turns: bool
    pictures: bool
    named: str


@dataclass(frozen=True)
class Channels:
    """What the channels of class probabilities are.

    Attributes
    ----------
    regions
        Whether they are regions, which may overlap: a sigmoid each. If not, they are classes, whose
        softmax adds up to 1, and channel k has the label k.
    order
        Label that nnU-Net gives where region k is the last one above 1/2; () if not told.
    """

    regions: bool
    order: tuple[int, ...]


def segmentation_beside(path: Path) -> Path | None:
    """Return the segmentation that nnU-Net wrote with an .npz, if there is one that can be read."""
    stem = split_suffix(path.name)[0]
    places = (path.with_name(stem + suffix) for suffix in PLACED_SUFFIXES)
    return next((place for place in places if place.exists()), None)


def files_read(path: Path) -> list[Path]:
    """Return the existing files besides an .npz that are opened when it is read as a score."""
    found = (
        segmentation_beside(path),
        *(_description(path, name) for name in ("dataset.json", "plans.json")),
    )
    return [place for place in found if place is not None]


def reader_of(path: Path) -> Reader:
    """Return how nnU-Net read the image of the class probabilities in `path`.

    ``plans.json`` names the reader, as nnU-Net itself goes by it. ``nnUNetv2_ensemble`` writes only
    ``dataset.json`` into its folder, which decides where there are no plans: it names the reader,
    or nnU-Net has chosen one by the ending of its files. Both are looked for beside `path`, or for
    ``fold_k/validation`` in the folder of the model. Where nothing tells, the axes are those of the
    file, as with nnU-Net's own choice for every ending.

    Raises
    ------
    ValueError
        A reader whose order of axes is not known, or a damaged file; the message names it.
    """
    plans = _description(path, "plans.json")
    if plans is not None:
        name = read_record(plans, _Plans).image_reader_writer
        if name is not None:
            return _reader(name, "image_reader_writer", plans, path)
    dataset = _description(path, "dataset.json")
    if dataset is None:
        return Reader(False, False, "nothing beside it names nnU-Net's reader")
    content = read_record(dataset, _Dataset)
    name = content.overwrite_image_reader_writer
    if name is not None and name != "None":
        return _reader(name, "overwrite_image_reader_writer", dataset, path)
    ending = content.file_ending
    if ending is not None and ending.lower() in _PICTURE_ENDINGS:
        return Reader(False, True, f"{dataset} says that its files end in {ending}")
    return Reader(False, False, f"{dataset} names no reader of its own")


def describe_channels(path: Path) -> Channels | None:
    """Return what the channels of the class probabilities in `path` are.

    nnU-Net's ``dataset.json`` says so, which lies beside the file, or for ``fold_k/validation`` in
    the folder of the model; None where there is none.

    Raises
    ------
    ValueError
        The ``dataset.json`` is damaged; the message names it.
    """
    dataset = _description(path, "dataset.json")
    if dataset is None:
        return None
    content = read_record(dataset, _Labels)
    order = content.regions_class_order
    regions = any(isinstance(label, list) and len(label) > 1 for label in content.labels.values())
    told = order if isinstance(order, list) else []
    known = all(isinstance(label, int) and 0 <= label < 1 << 16 for label in told)
    return Channels(regions, tuple(told) if known else ())


def holds_regions(path: Path) -> bool | None:
    """Return whether the channels of class probabilities are regions; see `describe_channels`."""
    channels = describe_channels(path)
    return None if channels is None else channels.regions


def _description(path: Path, name: str) -> Path | None:
    """Return the file `name` that describes `path`, if there is one."""
    places = [path.with_name(name)]
    if path.parent.name == "validation":
        places.append(path.absolute().parent.parent.parent / name)
    return next((place for place in places if place.is_file()), None)


def _reader(name: Any, entry: str, source: Path, path: Path) -> Reader:
    known = (*READERS, *_PICTURE_READERS)
    if name not in known:
        raise InputError(
            f"{source} says that its reader is {name!r} ({entry}), whose order of axes is "
            f"not known; known are {', '.join(known)}. Copy plans.json beside the scores and name "
            "in it, as image_reader_writer, the one that has the same order: SimpleITKIO if the "
            "arrays keep the axes of the files, SimpleITKIOWithReorient if they are turned to RAS",
            file=path,
        )
    return Reader(READERS.get(name, False), name in _PICTURE_READERS, f"{source} names {name}")
