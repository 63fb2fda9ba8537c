"""Small volumes of every format, and a reader that reads them whole and in slabs."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

from twintrack.runs.memory import case_bytes
from twintrack.volumes import Volume, read_label_map, read_volume, write_volume
from twintrack.volumes.annotation import open_annotation
from twintrack.volumes.slabs import open_slabs

SHAPE = (5, 4, 3)


class Finding(Exception):
    """A reader broke its word."""


def volume(path: Path) -> None:
    """Whole and in slabs, with one result; and the estimate of what it takes."""
    whole, refused = None, None
    try:
        whole = read_volume(path)
        whole.array.sum(dtype=np.float64)  # touches every page of a mapped file
    except (ValueError, OSError) as error:
        refused = error
    try:
        case_bytes({"score": path}, 1 << 20)
        opened = open_slabs(path)
        parts = list(opened.slabs(2))
    except (ValueError, OSError) as error:
        if refused is None:
            raise Finding(f"refused in slabs only: {error}") from error
        raise refused from None
    if refused is not None:
        # The tolerated difference: slabs stop reading an archive where their last class ends.
        if path.suffix == ".npz":
            raise refused
        raise Finding(f"refused as a whole only: {refused}") from refused
    assert whole is not None
    if not np.array_equal(np.concatenate(parts, axis=2), whole.array, equal_nan=True):
        raise Finding("other numbers in slabs")
    with contextlib.suppress(ValueError):  # scores are none
        read_label_map(path)


def example() -> np.ndarray:
    return np.linspace(0, 1, int(np.prod(SHAPE)), dtype=np.float32).reshape(SHAPE, order="F")


def written(name: str, folder: Path, array: np.ndarray, dtype: str | None = None) -> bytes:
    path = folder / f"seed-{name}"
    write_volume(path, array, Volume(array, np.diag([0.7, 0.8, 2.5, 1.0])), dtype)
    data = path.read_bytes()
    path.unlink()
    return data


def nifti(folder: Path) -> list[bytes]:
    labels = (example() > 0.5).astype(np.uint8)
    plain = written("a.nii", folder, example())
    swapped = nib.Nifti1Header(plain[:348]).as_byteswapped(">").binaryblock
    return [
        plain,
        written("a.nii", folder, example(), "uint16"),
        written("a.nii", folder, labels),
        plain[:108]
        + struct.pack("<f", 384)
        + plain[112:348]
        + b"\1\0\0\0"
        + bytes(32)
        + plain[352:],
        swapped + plain[348:352] + example().astype(">f4").tobytes(order="F"),
        nifti_of_classes(),
    ]


def nifti_of_classes() -> bytes:
    classes = np.stack([1 - example(), example()], axis=-1)
    return nib.Nifti1Image(classes, np.diag([0.7, 0.8, 2.5, 1.0])).to_bytes()


def nifti_gz(folder: Path) -> list[bytes]:
    plain = nifti(folder)
    return [gzip.compress(data) for data in plain] + [
        gzip.compress(plain[0][:400]) + gzip.compress(plain[0][400:]) + bytes(64),
    ]


def npy(folder: Path) -> list[bytes]:
    arrays = [example(), example().astype(">f8"), (example() > 0.5), example().astype(np.int16)]
    arrays.append(np.ascontiguousarray(example()))
    arrays.append(np.stack([1 - example(), example()]))
    return [saved(lambda file, array=array: np.save(file, array)) for array in arrays]


def npz(folder: Path) -> list[bytes]:
    classes = np.stack([1 - example().T, example().T, example().T / 2])
    return [
        saved(lambda file: np.savez_compressed(file, probabilities=classes)),
        saved(lambda file: np.savez(file, softmax=np.asfortranarray(classes.astype(np.float16)))),
        saved(lambda file: np.savez(file, score=example())),
    ]


def mha(folder: Path) -> list[bytes]:
    labels = (example() > 0.5).astype(np.uint8)
    return [written("a.mha", folder, example()), written("a.mha", folder, labels)]


def mhd(folder: Path) -> list[bytes]:
    """Headers of voxels in other files, which stay as they are."""
    lines = b"NDims = 3\nDimSize = 5 4 3\nElementType = MET_FLOAT\n"
    raw = example().tobytes(order="F")
    slices = [raw[start : start + 80] for start in (0, 80, 160)]
    for name, data in {"a.raw": raw, "b.raw": b"1234" + raw, "c.zraw": zlib.compress(raw)}.items():
        (folder / name).write_bytes(data)
    for number, data in enumerate(slices):
        (folder / f"s{number}.raw").write_bytes(data)
    return [
        lines + b"ElementDataFile = a.raw\n",
        lines + b"Offset = 1 2 3\nHeaderSize = 4\nElementDataFile = b.raw\n",
        lines + b"HeaderSize = -1\nElementDataFile = b.raw\n",
        lines + b"CompressedData = True\nElementDataFile = c.zraw\n",
        lines + b"ElementDataFile = s%d.raw 0 2 1\n",
        lines + b"ElementDataFile = LIST\ns0.raw\ns1.raw\ns2.raw\n",
    ]


NRRD = b"""NRRD0005
type: float
dimension: 3
space: left-posterior-superior
sizes: 5 4 3
space directions: (0.7,0,0) (0,0.8,0) (0,0,2.5)
kinds: domain domain domain
endian: little
space origin: (1,2,3)
"""

NRRD_LAYERS = (
    NRRD.replace(b": 3", b": 4")
    .replace(b"5 4 3", b"2 5 4 3")
    .replace(b"directions:", b"directions: none")
    .replace(b"kinds:", b"kinds: list")
)


def nrrd(folder: Path) -> list[bytes]:
    """Voxels behind the header, and in another file; the last are classes."""
    raw = example().tobytes(order="F")
    (folder / "a.raw").write_bytes(raw)
    classes = np.stack([1 - example(), example()]).tobytes(order="F")
    return [
        NRRD + b"encoding: raw\n\n" + raw,
        NRRD + b"encoding: gzip\n\n" + gzip.compress(raw, mtime=0),
        NRRD + b"encoding: raw\nbyte skip: -1\n\n12345" + raw,
        NRRD + b"encoding: raw\ndata file: a.raw\n",
        b"".join(line for line in NRRD.splitlines(True) if b"space" not in line)
        + b"spacings: 0.7 0.8 2.5\nencoding: raw\n\n"
        + raw,
        NRRD_LAYERS + b"encoding: bzip2\n\n" + bz2.compress(classes),
    ]


def seg_nrrd(folder: Path) -> list[bytes]:
    """Two layers with a segment each, as Slicer writes them."""
    layers = np.stack([example() > 0.5, example() > 0.2]).astype(np.uint8).tobytes(order="F")
    names = b"Segment0_Name:=tumour\nSegment0_Layer:=0\nSegment1_Name:=duct\nSegment1_Layer:=1\n"
    lines = NRRD_LAYERS.replace(b"float", b"uint8") + b"encoding: gzip\n" + names
    return [lines + b"\n" + gzip.compress(layers, mtime=0)]


def annotation(path: Path) -> None:
    """The segment of a name, whole and in slabs, with one result."""
    opened = open_annotation(path, ["tumour"])
    parts = list(opened.slabs(2))
    if not np.array_equal(np.concatenate(parts, axis=2), opened.whole().array):
        raise Finding("other voxels in slabs")


def saved(save: Callable[[io.BytesIO], object]) -> bytes:
    file = io.BytesIO()
    save(file)
    return file.getvalue()
