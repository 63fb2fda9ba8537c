"""All score tallies of a store in one file, so that refitting reads one file instead of thousands.

The pack ``STORE/KIND-KEY/tallies.pack`` is a cache: whoever deletes it loses only time. A tally in
it counts as long as record and tally of its case have the size and time of change that they had
when the pack was written; the others are read from their own files.

Version 2 of the format: 8 bytes ``TWTPACK2``; 8 bytes, little-endian, the position of the index;
blocks; the index, JSON. A case has a block for every set of raters who looked. A block is a table
of 64-bit aligned columns, each in the narrowest unsigned type that holds it: the cells (left out
where all cells from the first to the last are listed, used or not, because that is smaller), then
the columns of `SetTally.rows`. The index holds ``grid_cells`` and ``cases``: name to ``files``
(size and time of record and tally), ``raters``, ``regions``, ``score_types`` and ``blocks``, each
with ``set`` (numbers of the raters), ``at`` (position), ``first``, ``rows``, ``types`` (bytes of a
number in each column, 0 for cells that are left out) and ``crc``; under the name "" the sum of all
cases.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, TypeAlias

import msgspec
import numpy as np
from isal import isal_zlib
from msgspec import Meta
from numpy.typing import NDArray

from twintrack import _core
from twintrack.arrays.cell_rows import CellRows
from twintrack.arrays.rater_sets import RaterSet
from twintrack.calibration.case_weights import Load
from twintrack.calibration.equal_mass import Rows
from twintrack.calibration.score_tally import ScoreTally
from twintrack.calibration.set_tally import cell_rows
from twintrack.errors import InputError
from twintrack.files import naming, replacing

NAME = "tallies.pack"

Stamp = tuple[int, int, int, int]  # size and mtime_ns of record and tally

_MAGIC = b"TWTPACK2"
_HEAD = struct.Struct("<8sQ")
_ALL = ""  # in the index: the sum of all cases
_LARGEST_INDEX = 1 << 28  # bytes; a case takes about 150

_Width: TypeAlias = Literal[0, 1, 2, 4, 8]
_Natural = Annotated[int, Meta(ge=0)]


class _Block(msgspec.Struct):
    set: tuple[_Natural, ...]
    at: _Natural
    first: _Natural
    rows: _Natural
    types: Annotated[list[_Width], Meta(min_length=4)]
    crc: int


class _Case(msgspec.Struct, omit_defaults=True):
    raters: Annotated[int, Meta(ge=1)]
    regions: list[str]
    score_types: list[str]
    blocks: list[_Block]
    files: Stamp | None = None


class _Index(msgspec.Struct):
    grid_cells: int
    cases: dict[str, _Case]


@dataclass(frozen=True)
class PackedRows:
    """The rows of one set of raters, narrow as they are stored.

    Attributes
    ----------
    first
        Its first cell.
    cells
        (K,) uint32, or None if row k belongs to cell ``first + k``.
    columns
        Those of `SetTally.rows`: (K,) unsigned of any width.
    """

    first: int
    cells: NDArray[Any] | None
    columns: list[NDArray[Any]]

    def index(self) -> Any:
        """Return what takes the listed cells of an array over the grid."""
        if self.cells is None:
            return slice(self.first, self.first + len(self.columns[0]))
        return self.cells.astype(np.intp)

    def rows(self) -> Rows:
        """Return the rows that hold voxels."""
        if self.cells is None:
            used = np.flatnonzero(self.columns[0])
            cells = used + self.first
        else:
            used, cells = np.arange(len(self.cells)), self.cells
        sums = np.empty((len(cells), len(self.columns)), np.uint64)
        for k, column in enumerate(self.columns):
            sums[:, k] = column[used]
        return cells.astype(np.uint32), sums


@dataclass(frozen=True)
class PackedTally:
    """The sums of a case by set of raters, narrow as they are stored."""

    raters: int
    sets: Mapping[RaterSet, PackedRows]
    regions: frozenset[str]
    score_types: frozenset[str]

    @classmethod
    def of(cls, tally: ScoreTally) -> PackedTally:
        """Return a tally as if it had been packed."""
        rows = tally.set_rows().items()
        sets = {raters: PackedRows(0, cells, list(sums.T)) for raters, (cells, sums) in rows}
        return cls(tally.raters, sets, tally.regions, tally.score_types)

    def cell_rows(self) -> dict[RaterSet, CellRows]:
        """Return the voxels by set and cell; InputError for tallies of earlier versions."""
        return {
            raters: cell_rows(
                len(raters), own.first if own.cells is None else own.cells, own.columns
            )
            for raters, own in self.sets.items()
        }

    def load(self) -> Load:
        """Return what it takes of the capacity of a weighted sum."""
        sets = [(len(raters), rows.columns) for raters, rows in self.sets.items()]
        return Load(
            voxels=sum(int(columns[0].sum(dtype=np.uint64)) for _, columns in sets),
            residual=max((int(columns[1].max(initial=0)) for _, columns in sets), default=0),
            answers=math.lcm(1, *(raters for raters, _ in sets)),
            response=sum(
                sum(int(column.sum(dtype=np.uint64)) for column in columns[2 : 2 + raters]) / raters
                for raters, columns in sets
            ),
        )

    def tally(self, counts_votes: bool = True) -> ScoreTally:
        """Return the tally itself, or one without the voxels with exactly k votes."""
        sets = self.sets
        if not counts_votes:
            sets = {
                raters: replace(packed, columns=packed.columns[: 2 + len(raters)])
                for raters, packed in sets.items()
            }
        rows = {raters: packed.rows() for raters, packed in sets.items()}
        return ScoreTally.of_rows(self.raters, rows, sorted(self.regions), sorted(self.score_types))


class DenseSums:
    """Sums over the whole grid, by set of raters: thousands of packed tallies are added fast.

    Parameters
    ----------
    raters
        Number of raters of all tallies.
    """

    def __init__(self, raters: int) -> None:
        self.raters = raters
        self.sums: dict[RaterSet, NDArray[np.uint64]] = {}
        self.regions: set[str] = set()
        self.score_types: set[str] = set()

    def add(self, packed: PackedTally, weight: int = 1) -> None:
        """Add a tally whose voxels count as many, negative ones too."""
        for raters, rows in packed.sets.items():
            columns = len(rows.columns)
            total = self.sums.setdefault(raters, np.zeros((columns, _core.GRID_CELLS), np.uint64))
            # Tallies of earlier versions end with the votes.
            total = self.sums[raters] = total[:columns]
            index = rows.index()
            for own, column in zip(total, rows.columns, strict=False):
                if weight == 1:
                    own[index] += column
                elif weight == -1:
                    own[index] -= column
                else:
                    own[index] += column.astype(np.uint64) * np.uint64(weight)
        self.regions.update(packed.regions)
        self.score_types.update(packed.score_types)

    def merge(self, other: DenseSums) -> None:
        """Add sums of other tallies."""
        for raters, sums in other.sums.items():
            if raters in self.sums:
                columns = min(len(sums), len(self.sums[raters]))
                self.sums[raters] = self.sums[raters][:columns] + sums[:columns]
            else:
                self.sums[raters] = sums
        self.regions |= other.regions
        self.score_types |= other.score_types

    def tally(self) -> ScoreTally:
        """Return the sum as a tally."""
        sets = {}
        for raters, sums in self.sums.items():
            used = np.flatnonzero(sums[0])
            sets[raters] = used.astype(np.uint32), np.ascontiguousarray(sums[:, used].T)
        return ScoreTally.of_rows(self.raters, sets, sorted(self.regions), sorted(self.score_types))


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

    def raters(self, case: str) -> int:
        """Return the number of raters of a case."""
        return self._cases[case].raters

    def read(self, case: str) -> PackedTally:
        """Return the sums of a case; ValueError if they are damaged."""
        with naming(self.path):
            entry = self._cases[case]
            sets = {block.set: self._rows(case, block) for block in entry.blocks}
            ascending = all(
                list(raters) == sorted(set(raters)) and raters[-1] < entry.raters for raters in sets
            )
            if len(sets) < len(entry.blocks) or not ascending:
                raise InputError(f"damaged at case {case!r}")
            return PackedTally(
                entry.raters, sets, frozenset(entry.regions), frozenset(entry.score_types)
            )

    def _rows(self, case: str, block: _Block) -> PackedRows:
        rows, first, at, types = block.rows, block.first, block.at, block.types
        ends = np.cumsum([_padded(rows * width) for width in types]).tolist()
        content = self._bytes[at : at + ends[-1]]
        raters = len(block.set)
        fits = len(types) - 1 in (2 + raters, 2 + 2 * raters) and raters > 0
        if not fits or len(content) < ends[-1] or isal_zlib.crc32(content) != block.crc:
            raise InputError(f"damaged at case {case!r}")
        columns = [
            content[end - _padded(rows * width) :][: rows * width].view(f"<u{width}")
            if width
            else None
            for end, width in zip(ends, types, strict=True)
        ]
        cells, sums = columns[0], [column for column in columns[1:] if column is not None]
        last = first + rows - 1 if cells is None else int(cells[-1]) if rows else 0
        if len(sums) < len(types) - 1 or last >= _core.GRID_CELLS:
            raise InputError(f"damaged at case {case!r}")
        return PackedRows(first, cells, sums)


def write_pack(path: Path, tallies: Iterable[tuple[str, Stamp, ScoreTally]]) -> None:
    """Write a pack, whole or not at all."""
    cases: dict[str, _Case] = {}
    total: DenseSums | None = None
    alike = True
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(_HEAD.pack(_MAGIC, 0))
        for case, stamp, tally in tallies:
            cases[case] = _put(file, tally, stamp)
            total = total or DenseSums(tally.raters)
            alike = alike and tally.raters == total.raters and tally.counts_votes
            if alike:
                total.add(PackedTally.of(tally))
        if total is not None and alike:
            cases[_ALL] = _put(file, total.tally())
        index = file.tell()
        file.write(msgspec.json.encode(_Index(_core.GRID_CELLS, cases)))
        file.seek(0)
        file.write(_HEAD.pack(_MAGIC, index))


def _put(file: BinaryIO, tally: ScoreTally, stamp: Stamp | None = None) -> _Case:
    """Write the blocks of a tally and return its entry in the index."""
    blocks = [_put_rows(file, raters, rows) for raters, rows in tally.set_rows().items()]
    return _Case(
        raters=tally.raters,
        regions=sorted(tally.regions),
        score_types=sorted(tally.score_types),
        blocks=blocks,
        files=stamp,
    )


def _put_rows(file: BinaryIO, raters: RaterSet, rows: Rows) -> _Block:
    cells, sums = rows
    widths = [_width(int(column.max(initial=0))) for column in sums.T]
    first = int(cells[0])
    span = int(cells[-1]) + 1 - first
    dense = span * sum(widths) < len(cells) * (4 + sum(widths))
    columns = sums.T
    if dense:
        columns = np.zeros((sums.shape[1], span), np.uint64)
        columns[:, cells - first] = sums.T
    parts = [] if dense else [cells.astype("<u4").tobytes()]
    for column, width in zip(columns, widths, strict=True):
        parts.append(column.astype(f"<u{width}").tobytes())
    content = b"".join(part.ljust(_padded(len(part)), b"\0") for part in parts)
    block = _Block(
        set=raters,
        at=file.tell(),
        first=first,
        rows=span if dense else len(cells),
        types=[0 if dense else 4, *widths],
        crc=isal_zlib.crc32(content),
    )
    file.write(content)
    return block


def _width(largest: int) -> _Width:
    """Return the bytes of the narrowest unsigned type that holds a number."""
    widths: tuple[_Width, ...] = (1, 2, 4, 8)
    return next(width for width in widths if largest < 1 << (8 * width))


def _padded(size: int) -> int:
    return -(-size // 8) * 8
