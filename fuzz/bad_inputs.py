"""Prints what becomes of files that are made to do harm: the table in docs/runs.md.

    python fuzz/bad_inputs.py

`tests/test_bad_inputs.py` holds every line to the promise: a ValueError or OSError that names the
file, hardly any memory, nothing executed.
"""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from targets import TARGETS, Target, zipped

from twintrack import _core


@dataclass(frozen=True)
class BadInput:
    """A file that somebody might give us.

    Attributes
    ----------
    what
        What is wrong with it.
    target
        Name of the reader in `targets.TARGETS`.
    make
        Makes its bytes of a good file's.
    """

    what: str
    target: str
    make: Callable[[bytes], bytes]

    def message(self, folder: Path) -> str:
        """Read the file in an empty folder and return the message of the refusal."""
        target: Target = TARGETS[self.target]
        seed = target.seeds(folder)[0]
        message = target.check(folder, self.make(seed))
        return message.replace(f"{folder}/", "").replace(str(folder), "")


def header(good: bytes, **fields: bytes) -> bytes:
    """A NIfTI file with other bytes at places of its header, named ``at_40`` and so on."""
    changed = bytearray(good)
    for name, value in fields.items():
        at = int(name.removeprefix("at_"))
        changed[at : at + len(value)] = value
    return bytes(changed)


def shape(*lengths: int) -> bytes:
    return struct.pack("<4h", 3, *lengths)


HUGE = shape(32767, 32767, 32767)


def npy_header(descr: str, shape: tuple[int, ...], version: int = 1) -> bytes:
    text = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode()
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes((version, 0)) + size + text


class Executed:
    """Makes a file when it is unpickled."""

    def __init__(self, trace: str) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path(self.trace),))


TRACE = str(Path(tempfile.gettempdir()) / "twintrack-unpickled")


def pickled_array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([[[Executed(TRACE)]]], dtype=object), allow_pickle=True)
    return file.getvalue()


def bomb(good: bytes) -> bytes:
    """A small volume followed by a gigabyte of zeros, in a megabyte."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, 31)
    parts = [deflate.compress(gzip.decompress(good))]
    parts += [deflate.compress(bytes(1 << 20)) for _ in range(1 << 10)]
    return b"".join([*parts, deflate.flush()])


def lying_zip(good: bytes) -> bytes:
    """An entry that says it holds 100 bytes and inflates to a hundred million."""
    data = bytearray(zipped({"probabilities.npy": npy_header("<f4", (2, 1, 2, 3)) + bytes(10**8)}))
    directory = data.rindex(b"PK\1\2")
    data[directory + 24 : directory + 28] = struct.pack("<I", 128)
    return bytes(data)


def with_member(name: str, member: bytes) -> Callable[[bytes], bytes]:
    def make(good: bytes) -> bytes:
        with zipfile.ZipFile(io.BytesIO(good)) as archive:
            members = {entry: archive.read(entry) for entry in archive.namelist()}
        return zipped({**members, name: member})

    return make


def plain_tally() -> dict[str, bytes]:
    """The members of a tally of one voxel, of score 0, and one rater."""
    return {
        "format.npy": npy_header("<U21", ()) + "twintrack-score-tally".encode("utf-32-le"),
        "format_version.npy": npy_header("<i8", ()) + struct.pack("<q", 1),
        "grid_cells.npy": npy_header("<i8", ()) + struct.pack("<q", _core.GRID_CELLS),
        "cells.npy": npy_header("<u4", (1,)) + struct.pack("<I", 0),
        "sums.npy": npy_header("<u8", (1, 3)) + struct.pack("<3Q", 1, 0, 1),
    }


def counted_tally(*sums: int) -> dict[str, bytes]:
    """The same with numbers of votes, of two raters: count, residuals, votes, one and two votes."""
    return {
        **plain_tally(),
        "format_version.npy": npy_header("<i8", ()) + struct.pack("<q", 2),
        "raters.npy": npy_header("<i8", ()) + struct.pack("<q", 2),
        "sums.npy": npy_header("<u8", (1, 6)) + struct.pack("<6Q", *sums),
    }


def edited(**fields: object) -> Callable[[bytes], bytes]:
    return lambda good: json.dumps({**json.loads(good), **fields}).encode()


def text(old: str, new: str) -> Callable[[bytes], bytes]:
    return lambda good: good.replace(old.encode(), new.encode())


BAD_INPUTS = (
    BadInput("empty file", "nifti", lambda _: b""),
    BadInput("not NIfTI", "nifti", lambda _: b"GIF89a" + bytes(400)),
    BadInput("shape of 35 trillion voxels", "nifti", lambda g: header(g, at_40=HUGE)),
    BadInput("the same, compressed", "nifti-gz", lambda g: gzip.compress(
        header(gzip.decompress(g), at_40=HUGE))),
    BadInput("negative length", "nifti", lambda g: header(g, at_40=shape(5, -4, 3))),
    BadInput("voxels at byte 10³⁰", "nifti", lambda g: header(g, at_108=struct.pack("<f", 1e30))),
    BadInput("voxels at byte NaN", "nifti", lambda g: header(g, at_108=struct.pack("<f", np.nan))),
    BadInput("complex voxels", "nifti", lambda g: header(g, at_70=struct.pack("<hh", 32, 64))),
    BadInput("unknown voxel type", "nifti", lambda g: header(g, at_70=struct.pack("<hh", 9999, 8))),
    BadInput("last byte missing", "nifti", lambda g: g[:-1]),
    BadInput("gzip member cut off", "nifti-gz", lambda g: g[:-20]),
    BadInput("wrong CRC-32 behind the voxels", "nifti-gz", lambda g: g[:-8] + b"\0\0\0\0" + g[-4:]),
    BadInput("text behind the gzip member", "nifti-gz", lambda g: g + b"and so on"),
    BadInput("gzip bomb: 1 GiB of zeros behind the voxels", "nifti-gz", bomb),
    BadInput("array of objects (a pickle)", "npy", lambda _: pickled_array()),
    BadInput("a pickle called .npy", "npy", lambda _: pickle.dumps(Executed(TRACE))),
    BadInput("shape of 8 EB", "npy", lambda _: npy_header("<f4", (10**6, 10**6, 2 * 10**6))),
    BadInput("shape that overflows", "npy", lambda _: npy_header("<f8", (1 << 32, 1 << 32))),
    BadInput("header of 4 GiB", "npy", lambda _: b"\x93NUMPY\2\0" + struct.pack("<I", 2**32 - 1)),
    BadInput("header of 4 GiB", "npz", lambda _: zipped({
        "probabilities.npy": b"\x93NUMPY\2\0" + struct.pack("<I", 2**32 - 1)})),
    BadInput("a pickle in an npz", "npz", lambda _: zipped({"probabilities.npy": pickled_array()})),
    BadInput("npz that announces 256 GB", "npz", lambda _: zipped({
        "probabilities.npy": npy_header("<f4", (2, 4000, 4000, 4000)) + bytes(1000)})),
    BadInput("zip bomb: an entry larger than it says", "npz", lying_zip),
    BadInput("zip directory cut off", "npz", lambda g: g[:-30]),
    BadInput("two arrays and no usual name", "npz", lambda _: zipped({
        "a.npy": npy_header("<f4", (1, 1, 1)) + bytes(4),
        "b.npy": npy_header("<f4", (1, 1, 1)) + bytes(4)})),
    BadInput("damaged compressed voxels", "mha", lambda g: g[:-12] + bytes(12)),
    BadInput("size of 27 trillion voxels", "mha", text("= 5 4 3", "= 30000 30000 30000")),
    BadInput("voxels in a file that is not there", "mha", text("LOCAL", "gone.raw")),
    BadInput("-1 axes", "mha", text("NDims = 3", "NDims = -1")),
    BadInput("voxels in a file with a name of 300 letters", "mha", text("LOCAL", "x" * 300)),
    BadInput("size of 27 trillion voxels", "nrrd", text("5 4 3", "30000 30000 30000")),
    BadInput("voxels in a file that is not there", "nrrd", text("endian", "data file: x\nendian")),
    BadInput("direction without an end", "nrrd", text("(0.7,0,0)", "(0.7,0,")),
    BadInput("damaged compressed voxels", "seg-nrrd", lambda g: g[:-8] + bytes(8)),
    BadInput("segment of a layer that is not there", "seg-nrrd", text("Layer:=0", "Layer:=7")),
    BadInput("semicolons", "manifest", lambda g: g.replace(b",", b";")),
    BadInput("not UTF-8", "manifest", lambda g: g.replace(b"A,", b"\xff,")),
    BadInput("path as case name", "manifest", text("A,s.nii", "../A,s.nii")),
    BadInput("case name twice", "manifest", text("B,t.nii", "A,t.nii")),
    BadInput("rater number of 5,000 digits", "manifest", text("rater_1", "rater_" + "9" * 5000)),
    BadInput("file that is not there", "manifest", text("s.nii", "x.nii")),
    BadInput("file name of 300 letters", "manifest", text("s.nii", "x" * 300)),
    BadInput("one file for two raters", "manifest", text("s.nii,a.nii,b", "s.nii,a.nii,a")),
    BadInput("not JSON", "calibrator", lambda g: g[:-40]),
    BadInput("nested 100,000 deep", "calibrator", lambda _: b"[" * 10**5),
    BadInput("number of 5,000 digits", "calibrator", text('"cases": 6', '"cases": ' + "9" * 5000)),
    BadInput("NaN", "calibrator", edited(cases=float("nan"))),
    BadInput("newer format", "calibrator", edited(format_version=99)),
    BadInput("falling map", "calibrator", edited(knots={"x": [0.1, 0.9], "y": [1, 0]})),
    BadInput("knots out of range", "calibrator", edited(knots={"x": [0, 2], "y": [0, 1]})),
    BadInput("17 MB", "calibrator", lambda g: g.ljust(17 << 20)),
    BadInput("more votes than voxels", "score-tally", lambda _: zipped({
        **plain_tally(), "sums.npy": npy_header("<u8", (1, 3)) + struct.pack("<3Q", 1, 0, 2)})),
    BadInput("votes that were not cast", "score-tally",
             lambda _: zipped(counted_tally(3, 0, 1, 2, 1, 2))),
    BadInput("more voxels with votes than voxels", "score-tally",
             lambda _: zipped(counted_tally(3, 0, 3, 3, 2, 2))),
    BadInput("raters that are a list", "score-tally", lambda _: zipped({
        **counted_tally(3, 0, 1, 1, 0, 1), "raters.npy": npy_header("<i8", (2,)) + bytes(16)})),
    BadInput("cells that do not exist", "score-tally", lambda _: zipped({
        **plain_tally(), "cells.npy": npy_header("<u4", (1,)) + struct.pack("<I", 1 << 31)})),
    BadInput("cells of another grid", "score-tally", with_member(
        "grid_cells.npy", npy_header("<i8", ()) + struct.pack("<q", 7))),
    BadInput("a pickle for the cells", "score-tally", with_member("cells.npy", pickled_array())),
    BadInput("2⁴⁰ bins", "case-tally", with_member(
        "bins.npy", npy_header("<i8", ()) + struct.pack("<q", 1 << 40))),
    BadInput("tally of another run", "store-tally", lambda g: g[:-1] + b"\1"),
    BadInput("record without its tally", "store-record", edited(outputs={})),
    BadInput("record that is no JSON", "store-record", lambda g: g[:50]),
    BadInput("newer record", "store-record", edited(format_version=99)),
    BadInput("options with NaN", "store-options", edited(options={"region": float("nan")})),
    BadInput("cohort that is no list", "store-cohort", edited(cases={"A": 1})),
    BadInput("row with a cell too many", "results", lambda g: g + b"c,1,2,3,4\n"),
    BadInput("reader that is an object", "nnunet-plans", edited(image_reader_writer={"a": 1})),
    BadInput("nested 100,000 deep", "nnunet-plans", lambda _: b"[" * 10**5),
    BadInput("nested 100,000 deep", "summary", lambda _: b"[" * 10**5),
    BadInput("count of 10⁴⁰", "summary", edited(reliability={
        "bin_count": [10**40], "mean_score": [0.5], "mean_mhr": [0.5]})),
    BadInput("no labels", "nnunet-dataset", edited(labels=[])),
    BadInput("unknown reader", "score-plans", edited(image_reader_writer="OwnIO")),
    BadInput("labels that are no object", "score-dataset", edited(labels=3)),
)  # fmt: skip

__all__ = ["BAD_INPUTS", "TRACE", "BadInput"]


def main() -> None:
    print("| file | what is wrong | message |\n| --- | --- | --- |")
    for bad in BAD_INPUTS:
        if bad.target not in TARGETS:
            continue
        with tempfile.TemporaryDirectory() as folder:
            message = bad.message(Path(folder))
        shown = " ".join(message.split()).replace("|", "\\|")
        if len(shown) > 160:
            shown = f"{shown[:150]} …"
        print(f"| {bad.target} | {bad.what} | {shown or '**read**'} |")


if __name__ == "__main__":
    main()
