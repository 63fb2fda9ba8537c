"""``twintrack share``: tallies of a fit without names, to be sent to another site."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from twintrack.cli import options


def share(
    store: Annotated[Path, typer.Argument(metavar="STORE")],
    output: Annotated[Path, typer.Option("-o", "--output")],
    site: str,
    key: Path | None = None,
    only: list[str] | None = None,
    without: list[str] | None = None,
    group: str | None = None,
    region: options.Region | None = None,
    no_digests: bool = False,
    *,
    telling: options.Telling,
) -> None:
    """Copy the tallies of a fit without names of cases, patients and files, to be sent.

    twintrack fit --tallies takes copies of several sites together. The key says what a case is
    called in the copy and stays here; with it, a case is called the same in the next copy.

    Parameters
    ----------
    store
        Folder of the tallies, such as NAME.tallies of twintrack fit.
    output
        New folder for the copy.
    site
        What names in the copy begin with: SITE-0001.
    key
        CSV file that keeps who is who. By default beside -o: FOLDER.key.csv.
    only
        Take this case alone, or those that match a pattern such as 'A*'. May be repeated.
    without
        Leave out this case, or those that match a pattern. May be repeated.
    group
        Where the names of cases have the patient: '{patient}_nodule-*'. For tallies that do not
        know their patients.
    region
        Which tallies are meant, if the store has several sets.
    no_digests
        Leave out the digests of the scores, by which copies of a case are found out, and cases that
        a map was fitted on.
    """
    from twintrack.files import check_file_place, check_folder_place
    from twintrack.runs.fit import read_tallies
    from twintrack.runs.sharing import share_tallies

    report = telling.report()
    key = key or output.with_name(f"{output.name}.key.csv")
    check_folder_place(output)
    check_file_place(key)
    made_with, tallies = read_tallies(
        store, region=region, only=only or (), without=without or (), group=group
    )
    shared = share_tallies(tallies, made_with, output, key, site, digests=not no_digests)
    report.result(
        f"Tallies of {len(shared.names)} cases without names",
        [
            *([("patients", len(shared.patients))] if shared.patients else []),
            ("send", output),
            ("keep", key),
            ("then", f"twintrack fit --tallies OURS --tallies {output} -o calibrator.json"),
        ],
        output=str(output),
        key=str(key),
        cases=len(shared.names),
    )
