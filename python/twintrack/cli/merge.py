"""``twintrack merge``: one result from the parts of a run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from twintrack.cli import options
from twintrack.errors import InputError
from twintrack.files import check_folder_place, replacing


def merge(
    parts: Annotated[list[Path], typer.Argument(metavar="PART...")],
    output: Annotated[Path, typer.Option("-o", "--output")],
    method: options.Method = None,
    force: bool = False,
    *,
    telling: options.Telling,
) -> None:
    """Join what parts of a run have finished, on one machine or on several.

    Nothing is computed again; figures and tallies are byte for byte those of a run in one piece.
    Example slices are only those that the parts were asked for (--example). Parts must have been
    made with the same options; it is an error if one was not finished.

    Parameters
    ----------
    parts
        Stores of twintrack fit (NAME.tallies) or result folders of twintrack evaluate, all of one
        kind.
    output
        Store or result folder that gets everything; may be one of the parts.
    force
        Replace what another method has left in -o.
    """
    from twintrack.runs import evaluate, fit
    from twintrack.runs.earlier_results import check_results
    from twintrack.runs.merge import kind_of, merge_stores, store_of
    from twintrack.runs.method_names import default_method
    from twintrack.runs.store import open_stores

    report = telling.report()
    check_folder_place(output)
    stores = [store_of(part) for part in parts]
    kinds = {kind_of(store) for store in stores}
    if len(kinds) > 1:
        raise InputError(f"parts of different kinds ({', '.join(sorted(kinds))}): merge each kind")
    (kind,) = kinds
    if kind == evaluate.KIND:
        opened = [store for part in stores for store in open_stores(part, kind)]
        calibrated = any(map(evaluate.stored_calibrated, opened))
        name = method or default_method(opened[0].options, calibrated)
        check_results(output, name, opened[0].options, force=force)
        merged = merge_stores(stores, output / "store", kind)
        found = evaluate.stored_evaluation(merged)
        options.write_evaluation(report, found, output, name)
        _copy_examples(parts, output)
        options.exit_by(len(found.failures), len(found.rows) + len(found.failures))
        return
    if kind == fit.KIND:
        merged = merge_stores(stores, output, kind)
        finished, failures = merged.complete()
        report.result(
            f"Tallies of {len(finished)} cases",
            [
                *([("failed", f"{len(failures)}")] if failures else []),
                ("store", output),
                ("then", f"twintrack fit --tallies {output} -o calibrator.json"),
            ],
            store=str(output),
            cases=len(finished),
            failed=len(failures),
        )
        options.exit_by(len(failures), len(finished) + len(failures))
        return
    raise InputError(
        f"holds {kind} volumes, which are in one folder when they are written to one", file=parts[0]
    )


def _copy_examples(parts: list[Path], output: Path) -> None:
    """Take over the slices that parts of an evaluation were asked to keep; others go."""
    found = sorted(path for part in parts for path in (part / "examples").glob("*.npz"))
    for path in set((output / "examples").glob("*.npz")):
        if path.name not in {part.name for part in found}:
            path.unlink()
    for path in found:
        place = output / "examples" / path.name
        if place.exists() and place.samefile(path):
            continue
        place.parent.mkdir(exist_ok=True)
        with replacing(place) as temporary:
            shutil.copyfile(path, temporary)
