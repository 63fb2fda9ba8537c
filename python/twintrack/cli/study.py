"""``twintrack study``: how many cases, which bins, region and method, from stored tallies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from twintrack.cli import options
from twintrack.cli.extras import require
from twintrack.errors import InputError


def study(
    tallies: Annotated[list[str], typer.Option(metavar="[NAME=]FOLDER")],
    output: Annotated[Path, typer.Option("-o", "--output")],
    splits: Annotated[int, typer.Option(min=1)] = 5,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    draws: Annotated[int, typer.Option(min=0)] = 0,
    region: options.Region | None = None,
    only: list[str] | None = None,
    without: list[str] | None = None,
    group: str | None = None,
    *,
    telling: options.Telling,
) -> None:
    """Study maps on stored tallies: methods, bins, patients needed, transfer, regions.

    No voxel is read. Patients are divided at random into halves: maps are fitted to one half and
    measured on the other. Each question has an answer in a sentence, a table and a CSV file. The
    same command twice gives byte-identical files.

    Parameters
    ----------
    tallies
        The tallies that twintrack fit has stored (NAME.tallies). Tallies of all voxels give TDSC,
        CRPS and volumes; those of other regions in the same store are compared with them. A second
        store is another cohort, or another model on the same one: its map is tried on the first,
        and the other way round. All other tables are of the first.
    output
        Folder for study.html, the CSV files and figures.
    splits
        Number of divisions into halves.
    seed
        Seed of the divisions and of the patients that are drawn.
    draws
        Draw the patients of both halves again, so often, for intervals of the differences between
        methods, such as 200. By default there are none.
    region
        Which tallies are measured. By default those of all voxels, where there are any.
    only
        Take this case alone, or those that match a pattern such as 'A*'. May be repeated.
    without
        Leave out this case, or those that match a pattern. May be repeated.
    group
        Where the names of cases have the patient: '{patient}_nodule-*'. For tallies that do not
        know their patients.
    """
    from twintrack.cli.pooling import places
    from twintrack.files import check_folder_place
    from twintrack.runs import study as runs
    from twintrack.runs.study_cohort import open_cohort

    report = telling.report()
    check_folder_place(output)
    require("report", "study")
    if len(tallies) > 2:
        raise InputError(
            f"--tallies is given {len(tallies)} times; a study is of one cohort, or of two whose "
            "maps are tried on each other"
        )
    from twintrack.report.study_page import write_study

    cohorts = [
        open_cohort(place, region=region, only=only or (), without=without or (), group=group)
        for place in places(tallies)
    ]
    found = runs.study(*cohorts, splits=splits, seed=seed, draws=draws, progress=report.progress)
    write_study(found, output)
    for note in found.notes:
        report.warn(note)
    report.result(
        "",
        [
            *((table.title, table.answer) for table in found.tables),
            *((question, f"not answered: {why}") for question, why in found.absent),
            ("written to", output / "study.html"),
        ],
        output=str(output),
        answers={table.key: table.answer for table in found.tables},
    )
