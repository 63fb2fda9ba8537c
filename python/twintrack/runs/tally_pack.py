"""All score tallies of a store in one file, so that refitting reads one file instead of thousands.

The pack ``STORE/KIND-KEY/tallies.pack`` is a cache: whoever deletes it loses only time. A tally in
it counts as long as record and tally of its case have the size and time of change that they had
when the pack was written; the others are read from their own files.

Version 1 of the format: 8 bytes ``TWTPACK1``; 8 bytes, little-endian, the position of the index; a
block per case; the index, JSON. A block is a table of 64-bit aligned columns, each in the narrowest
unsigned type that holds it: the cells (left out where all cells from the first to the last are
listed, used or not, because that is smaller), then count, residuals and the votes of each rater.
The index holds ``grid_cells`` and ``cases``: name to ``files`` (size and time of record and
tally), ``at`` (position), ``first``, ``rows``, ``types`` (bytes of a number in each column, 0 for
cells that are left out) and ``crc`` (of the block); under the name "" the sum of all cases.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, TypeAlias

import msgspec
import numpy as np
from isal import isal_zlib
from msgspec import Meta
from numpy.typing import NDArray

from twintrack import _core
from twintrack.calibration.score_tally import ScoreTally
from twintrack.errors import InputError
from twintrack.files import naming, replacing

NAME = "tallies.pack"

Stamp = tuple[int, int, int, int]  # size and mtime_ns of record and tally

_MAGIC = b"TWTPACK1"
_HEAD = struct.Struct("<8sQ")
_ALL = ""  # in the index: the sum of all cases
_LARGEST_INDEX = 1 << 28  # bytes; a case takes about 150

_Width: TypeAlias = Literal[0, 1, 2, 4, 8]
_Natural = Annotated[int, Meta(ge=0)]


class _Block(msgspec.Struct, omit_defaults=True):
    at: _Natural
    first: _Natural
    rows: _Natural
    types: Annotated[list[_Width], Meta(min_length=4)]
    crc: int
    files: Stamp | None = None


class _Index(msgspec.Struct):
    grid_cells: int
    cases: dict[str, _Block]


@dataclass(frozen=True)
class PackedTally:
    """The sums of a case, narrow as they are stored.

    Attributes
    ----------
    first
        Its first cell.
    cells
        (K,) uint32, or None if row k belongs to cell ``first + k``.
    columns
        Count, residuals and the votes of each rater: (K,) unsigned of any width.
    """

    first: int
    cells: NDArray[Any] | None
    columns: list[NDArray[Any]]

    @property
    def raters(self) -> int:
        """Number of raters."""
        return len(self.columns) - 2

    def add_to(self, sums: NDArray[np.uint64]) -> None:
        """Add to dense sums (2 + N, GRID_CELLS)."""
        index = self._index()
        for total, column in zip(sums, self.columns, strict=True):
            total[index] += column

    def take_from(self, sums: NDArray[np.uint64]) -> None:
        """Subtract from dense sums that it was added to."""
        index = self._index()
        for total, column in zip(sums, self.columns, strict=True):
            total[index] -= column

    def _index(self) -> Any:
        if self.cells is None:
            return slice(self.first, self.first + len(self.columns[0]))
        return self.cells.astype(np.intp)

    def tally(self) -> ScoreTally:
        """Return the tally itself."""
        if self.cells is None:
            used = np.flatnonzero(self.columns[0])
            cells = used + self.first
        else:
            used, cells = np.arange(len(self.cells)), self.cells
        sums = np.empty((len(cells), len(self.columns)), np.uint64)
        for k, column in enumerate(self.columns):
            sums[:, k] = column[used]
        return ScoreTally.from_rows(cells.astype(np.uint32), sums)


class TallyPack:
    """A pack that is open for reading.

    Raises
    ------
    FileNotFoundError
        There is none.
    ValueError
        It is damaged, or of another version; names the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with naming(path):
            with path.open("rb") as file:
                magic, at = _HEAD.unpack(file.read(_HEAD.size))
                size = path.stat().st_size
                if magic != _MAGIC or not _HEAD.size <= at <= size or size - at > _LARGEST_INDEX:
                    raise InputError("not a pack of this version")
                file.seek(at)
                index = msgspec.json.decode(file.read(), type=_Index)
            if index.grid_cells != _core.GRID_CELLS:
                raise InputError("it was made on another score grid")
            self._cases = index.cases
            self._bytes = np.asarray(np.memmap(path, np.uint8, "r"))

    @property
    def cases(self) -> list[str]:
        """Names of the cases in it."""
        return [case for case in self._cases if case != _ALL]

    def total(self) -> PackedTally | None:
        """Return the sum of all cases in it; None if their numbers of raters differ."""
        return self.read(_ALL) if _ALL in self._cases else None

    def has(self, case: str, files: Stamp) -> bool:
        """Whether the pack holds the tally of a case whose files have these sizes and times."""
        return case in self._cases and self._cases[case].files == files

    def read(self, case: str) -> PackedTally:
        """Return the sums of a case; ValueError if they are damaged."""
        with naming(self.path):
            entry = self._cases[case]
            rows, first, at, types = entry.rows, entry.first, entry.at, entry.types
            ends = np.cumsum([_padded(rows * width) for width in types]).tolist()
            block = self._bytes[at : at + ends[-1]]
            if len(block) < ends[-1] or isal_zlib.crc32(block) != entry.crc:
                raise InputError(f"damaged at case {case!r}")
            columns = [
                block[end - _padded(rows * width) :][: rows * width].view(f"<u{width}")
                if width
                else None
                for end, width in zip(ends, types, strict=True)
            ]
            cells, sums = columns[0], [column for column in columns[1:] if column is not None]
            last = first + rows - 1 if cells is None else int(cells[-1]) if rows else 0
            if len(sums) < len(types) - 1 or last >= _core.GRID_CELLS:
                raise InputError(f"damaged at case {case!r}")
            return PackedTally(first, cells, sums)


def write_pack(path: Path, tallies: Iterable[tuple[str, Stamp, ScoreTally]]) -> None:
    """Write a pack, whole or not at all."""
    cases: dict[str, _Block] = {}
    total: ScoreTally | None = None
    alike = True
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(_HEAD.pack(_MAGIC, 0))
        for case, stamp, tally in tallies:
            cases[case] = _put(file, tally, stamp)
            total = total or ScoreTally(tally.raters)
            alike = alike and tally.raters == total.raters
            if alike:
                total += tally
        if total is not None and alike:
            cases[_ALL] = _put(file, total)
        index = file.tell()
        file.write(msgspec.json.encode(_Index(_core.GRID_CELLS, cases)))
        file.seek(0)
        file.write(_HEAD.pack(_MAGIC, index))


def _put(file: BinaryIO, tally: ScoreTally, stamp: Stamp | None = None) -> _Block:
    """Write the block of a tally and return its entry in the index."""
    cells, sums = tally.rows()
    widths = [_width(int(column.max(initial=0))) for column in sums.T]
    first = int(cells[0]) if len(cells) else 0
    span = int(cells[-1]) + 1 - first if len(cells) else 0
    dense = span * sum(widths) < len(cells) * (4 + sum(widths))
    columns = sums.T
    if dense:
        columns = np.zeros((sums.shape[1], span), np.uint64)
        columns[:, cells - first] = sums.T
    parts = [] if dense else [cells.astype("<u4").tobytes()]
    for column, width in zip(columns, widths, strict=True):
        parts.append(column.astype(f"<u{width}").tobytes())
    content = b"".join(part.ljust(_padded(len(part)), b"\0") for part in parts)
    entry = _Block(
        at=file.tell(),
        first=first,
        rows=span if dense else len(cells),
        types=[0 if dense else 4, *widths],
        crc=isal_zlib.crc32(content),
        files=stamp,
    )
    file.write(content)
    return entry


def _width(largest: int) -> _Width:
    """Return the bytes of the narrowest unsigned type that holds a number."""
    widths: tuple[_Width, ...] = (1, 2, 4, 8)
    return next(width for width in widths if largest < 1 << (8 * width))


def _padded(size: int) -> int:
    return -(-size // 8) * 8
