"""Which images of a folder make up which case."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from twintrack.errors import InputError
from twintrack.files import PLACED_SUFFIXES, natural_order, split_suffix
from twintrack.nnunet.trained_folder import PathLike


@dataclass(frozen=True)
class ImageCase:
    """A case that is to be predicted.

    Attributes
    ----------
    name
        Unique in its folder.
    images
        One file for each channel.
    """

    name: str
    images: tuple[Path, ...]


def find_images(source: PathLike, channels: int = 1) -> list[ImageCase]:
    """Return the cases of a folder of images, in natural order of their names.

    Nested folders in CURVAS layout (``CASE/image.nii.gz``) and nnU-Net's names
    (``CASE_0000.nii.gz``, one file a channel) are understood. For one channel any other name is
    that of its case, also with another number at its end (``scan_0001.mha``). A single file is a
    folder of one case.

    Raises
    ------
    FileNotFoundError
        No such file or folder, or no image in it.
    InputError
        A case lacks a channel or has one too many, or two files would be the same case, or, for one
        channel, ``CASE_0000`` and ``CASE_0001`` may be one case or two.
    """
    source = Path(source)
    cases: dict[str, dict[int, Path]] = {}
    for file, folder in _images(source):
        case, channel = folder or split_suffix(file.name)[0], 0
        head, _, number = case.rpartition("_")
        numbered = not folder and head and len(number) == 4 and number.isdecimal()
        if numbered and (channels > 1 or int(number) == 0):
            case, channel = head, int(number)
        other = cases.setdefault(case, {}).setdefault(channel, file)
        if other != file:
            raise InputError(f"is the same case as {other}; keep one of them", file=file)
    if not cases:
        raise FileNotFoundError(
            errno.ENOENT, f"no images ({', '.join(PLACED_SUFFIXES)}) in this folder", str(source)
        )
    for case, files in cases.items():
        second = cases.get(f"{case}_0001")
        if channels == 1 and second and split_suffix(files[0].name)[0] == f"{case}_0000":
            raise InputError(
                f"{files[0].name} and {second[0].name} are two channels of a case or two "
                "cases; the networks were trained with 1 channel: take away what is no first "
                "channel, or give the cases names without _0000",
                file=source,
            )
        if sorted(files) != list(range(channels)):
            names = ", ".join(files[number].name for number in sorted(files))
            raise InputError(
                f"case {case!r} has {names}, but the networks were trained with "
                f"{channels} channel{'s' * (channels > 1)}, numbered from _0000 on",
                file=source,
            )
    return [
        ImageCase(case, tuple(cases[case][channel] for channel in range(channels)))
        for case in sorted(cases, key=natural_order)
    ]


def _images(source: Path) -> Iterator[tuple[Path, str]]:
    """Yield the images, and of those in CURVAS layout the name of their folder."""
    if not source.exists():
        raise FileNotFoundError(errno.ENOENT, "no such file or folder", str(source))
    for entry in [source] if source.is_file() else source.iterdir():
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            nested = (entry / f"image{suffix}" for suffix in PLACED_SUFFIXES)
            yield from ((file, entry.name) for file in nested if file.is_file())
        elif split_suffix(entry.name)[1] in PLACED_SUFFIXES:
            yield entry, ""
