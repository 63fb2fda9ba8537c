"""Files of score tallies: npz archives.

Version 2 holds, besides ``format`` and ``format_version``::

    grid_cells      number of cells of the score grid
    raters          number N of raters
    regions         which voxels were counted: texts such as "box"
    score_types     dtypes of the scores
    cells, sums     (K,) uint32 and (K, 2 + 2N) uint64: rows of the voxels that all raters looked at
    sets            (S, N) bool: other sets of raters who looked; absent if there are none
    cells_0, sums_0, …  rows of each of them

Version 1 holds ``grid_cells``, ``cells`` and ``sums`` (K, 2 + N), without the voxels that exactly k
raters marked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from twintrack import _core
from twintrack.calibration.score_tally import ScoreTally
from twintrack.calibration.set_tally import check_rows
from twintrack.errors import InputError
from twintrack.files import naming
from twintrack.volumes.tally_files import read_tally, write_tally

KIND = "score tally"
FORMAT_VERSION = 2
_LARGEST_FILE = 1 << 29  # bytes of all arrays; 255 raters in every cell take 494 million


def write_score_tally(tally: ScoreTally, path: Path) -> None:
    """Write a tally, whole or not at all."""
    rows = tally.set_rows()
    everyone = tuple(range(tally.raters))
    cells, sums = rows.pop(everyone, ScoreTally(tally.raters).pooled_rows())
    arrays: dict[str, Any] = {"cells": cells, "sums": sums}
    if rows:
        members = np.zeros((len(rows), tally.raters), np.bool_)
        arrays["sets"] = members
        for row, (raters, own) in enumerate(rows.items()):
            members[row, list(raters)] = True
            arrays[f"cells_{row}"], arrays[f"sums_{row}"] = own
    write_tally(
        path,
        KIND,
        FORMAT_VERSION,
        grid_cells=_core.GRID_CELLS,
        raters=tally.raters,
        regions=np.array(sorted(tally.regions), "U8"),
        score_types=np.array(sorted(tally.score_types), "U8"),
        **arrays,
    )


def read_score_tally(path: Path) -> ScoreTally:
    """Read a tally; `ScoreTally.load` says what is raised."""
    found = read_tally(path, KIND, ("grid_cells", "cells", "sums"), _LARGEST_FILE, FORMAT_VERSION)
    with naming(path):
        if int(found["grid_cells"]) != _core.GRID_CELLS:
            raise InputError("it was made on another score grid")
        if found["sums"].ndim != 2:
            raise InputError("its arrays do not fit together")
        raters = int(found["raters"]) if "raters" in found else found["sums"].shape[1] - 2
        if raters < 1:
            raise InputError("its arrays do not fit together")
        sets = {tuple(range(raters)): check_rows(found["cells"], found["sums"], raters)}
        members = found.get("sets", np.zeros((0, raters), np.bool_))
        if members.dtype != np.bool_ or members.ndim != 2 or members.shape[1] != raters:
            raise InputError("its sets of raters are damaged")
        for row, member in enumerate(members):
            some = tuple(np.flatnonzero(member).tolist())
            if not some or some in sets:
                raise InputError(f"its set {row} of raters is empty, or there twice")
            names = f"cells_{row}", f"sums_{row}"
            missing = [name for name in names if name not in found]
            if missing:
                raise InputError(f"it is a damaged {KIND}: {', '.join(missing)} missing")
            sets[some] = check_rows(found[names[0]], found[names[1]], len(some))
        told = [found.get(name, np.array([], "U8")) for name in ("regions", "score_types")]
        if any(one.dtype.kind != "U" or one.ndim != 1 for one in told):
            raise InputError("its regions or score types are damaged")
        return ScoreTally.of_rows(raters, sets, *(one.tolist() for one in told))
