"""``twintrack compare``: several result folders side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from twintrack.cli.extras import require
from twintrack.files import check_folder_place
from twintrack.report.build import build_report
from twintrack.report.comparison import Comparison, Rule
from twintrack.report.method_results import read_several
from twintrack.report.tables import mean_table, one_line, print_table
from twintrack.statistics import IntervalMethod


def compare(
    results: Annotated[list[Path], typer.Argument(metavar="RESULT_FOLDER...")],
    output: Annotated[Path, typer.Option("-o", "--output")],
    reference: str | None = None,
    resamples: Annotated[int, typer.Option(min=1)] = 5000,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    method: list[str] | None = None,
    group: str | None = None,
    interval: IntervalMethod = "percentile",
    rule: Rule = "both",
    title: str = "Calibration methods compared",
) -> None:
    """Compare methods: Tables 1 and 2 of the paper, figures, and an HTML report.

    Cases are matched by name; those that a method lacks are left out and listed. The same command
    twice gives byte-identical files.

    Parameters
    ----------
    results
        Folders written by twintrack evaluate, one per method, in the order shown.
    output
        Folder for tables, figures and report.html.
    reference
        Method to compare the others with. Default: the one calibrated to the MHR, else the last.
    resamples
        Bootstrap resamples of the patients: of the cases where no patients are known.
    seed
        Seed of the bootstrap.
    group
        Where the names of cases have the patient: '{patient}_nodule-*', with {k} for a number and *
        for any text. Only for results of twintrack evaluate that do not name patients.
    method
        Name of a method, given once for each folder, in their order. By default the names that
        twintrack evaluate has given them.
    interval
        How the confidence intervals are made.
    rule
        When a difference is flagged. both: its interval excludes 0, and a sign-flip test gives
        p < 0.05. interval: the paper's rule, the first alone, which flags too easily with few
        cases.
    title
        Title of the report.
    """
    check_folder_place(output)
    require("report", "compare")
    comparison = build_report(
        read_several(results, method, group),
        output,
        reference=reference,
        resamples=resamples,
        seed=seed,
        method=interval,
        rule=rule,
        title=title,
    )
    print_comparison(comparison, output)


def print_comparison(comparison: Comparison, output: Path) -> None:
    """Print Table 1, what was left out, and where the report is."""
    console = Console()
    benchmark, _ = comparison.split_metrics()
    print_table(mean_table(comparison, benchmark), console)
    for warning in comparison.warnings():
        console.print(
            f"warning: {one_line(warning)}", markup=False, style="bold red", highlight=False
        )
    for case, why in comparison.left_out.items():
        console.print(
            f"left out: {one_line(case)} ({one_line(why)})", markup=False, highlight=False
        )
    console.print(
        f"report: {output / 'report.html'}", markup=False, highlight=False, soft_wrap=True
    )
