"""``twintrack fit``: a calibrator from a cohort, or from tallies that an earlier run has stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from twintrack.cli import options
from twintrack.cli.reporting import Report
from twintrack.cli.running import RUNNING, Running
from twintrack.errors import InputError

if TYPE_CHECKING:
    from twintrack.calibration.calibrator import Calibrator
    from twintrack.runs.store import Failure

_MAP = "Map"


class Target(str, Enum):
    """What a calibrated score estimates."""

    mhr = "mhr"
    single = "single"
    hard = "hard"
    none = "none"


def fit(
    output: Annotated[
        Path, typer.Option("-o", help="Calibrator file to write (JSON).", show_default=False)
    ],
    source: Annotated[
        Path | None,
        typer.Option(
            "-i",
            help="The cohort: a manifest (CSV with the columns case, score, rater_1, rater_2, …, "
            "and roi if there are masks), or a folder with the annotations of each case, which "
            "needs -p; predictions without annotations are left out.",
            show_default=False,
        ),
    ] = None,
    tallies: Annotated[
        Path | None,
        typer.Option(
            "--tallies",
            help="Instead of -i: the store of an earlier fit. No voxel is read again, so other "
            "targets, bins and subsets of the cases take moments.",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        Target,
        typer.Option(
            help="What a calibrated score estimates: the mean human response (mhr), one rater's "
            "answer (single), the average of one map per rater (hard), or nothing (none, the "
            "identity).",
            rich_help_panel=_MAP,
        ),
    ] = Target.mhr,
    rater: Annotated[
        int,
        typer.Option(
            min=1,
            help="The rater that --target single follows: 1 is rater_1.",
            rich_help_panel=_MAP,
        ),
    ] = 1,
    bins: Annotated[
        str,
        typer.Option(
            help="Number of equal-mass bins, or auto: chosen by cross-validation over the cases.",
            rich_help_panel=_MAP,
        ),
    ] = "250",
    exact: Annotated[
        bool,
        typer.Option(
            "--exact",
            help="Read the voxels twice and place the cuts between bins exactly. Needless for "
            "16-bit scores.",
            rich_help_panel=_MAP,
        ),
    ] = False,
    folds: Annotated[
        int, typer.Option(min=2, help="Folds of --bins auto.", rich_help_panel=_MAP)
    ] = 5,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of --bins auto and --band.", rich_help_panel=_MAP)
    ] = 0,
    region: Annotated[
        options.Region | None,
        typer.Option(
            help="Which voxels count: inside the roi mask, inside the box around all annotations "
            "(grown by 20 voxels), or all. By default roi if every case has a mask, else box. With "
            "all on whole CTs the tumour is lost in the last bin.",
            show_default=False,
            rich_help_panel=_MAP,
        ),
    ] = None,
    average: Annotated[
        str | None,
        typer.Option(
            help="How the ensemble was averaged (probabilities or logits): recorded with the map.",
            show_default=False,
            rich_help_panel=_MAP,
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Fit to this case alone, or to those that match a pattern such as 'A*'. May be "
            "repeated.",
            show_default=False,
            rich_help_panel=_MAP,
        ),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(
            help="Leave out this case, or those that match a pattern. May be repeated.",
            show_default=False,
            rich_help_panel=_MAP,
        ),
    ] = None,
    leave_one_out: Annotated[
        Path | None,
        typer.Option(
            "--leave-one-out",
            help="Also write to this folder, for every case, CASE.json fitted to all the others.",
            show_default=False,
            rich_help_panel=_MAP,
        ),
    ] = None,
    band: Annotated[
        Path | None,
        typer.Option(
            "--band",
            help="Also write to this CSV file the map with its 95% band over resampled cases.",
            show_default=False,
            rich_help_panel=_MAP,
        ),
    ] = None,
    predictions: options.Predictions = None,
    raters: options.RaterPattern = options.RATERS,
    roi: options.RoiPattern = options.ROI,
    tumour: options.Tumour = "1",
    ignore_header: options.IgnoreHeader = False,
    skip_broken: Annotated[
        bool,
        typer.Option(
            "--skip-broken",
            help="Leave out cases that cannot be read. By default they are an error.",
            rich_help_panel=RUNNING,
        ),
    ] = False,
    store: Annotated[
        Path | None,
        typer.Option(
            "--store",
            help="Folder that keeps the tallies. By default beside -o: NAME.tallies.",
            show_default=False,
            rich_help_panel=RUNNING,
        ),
    ] = None,
    *,
    run: Running,
    telling: options.Telling,
) -> None:
    """Fit a calibrator: the map from score to the fraction of experts who would mark the voxel.

    Every case is read once and reduced to a tally, which is kept: a run that was interrupted goes
    on where it was, and twintrack fit --tallies fits again without reading a voxel. The calibrator
    has digests of the cases' names and scores, by which twintrack evaluate knows them again.
    """
    from twintrack.calibration.calibrator import Calibrator
    from twintrack.cohort.score_records import join_ensembles
    from twintrack.files import check_file_place, check_folder_place
    from twintrack.runs import fit as runs
    from twintrack.runs.engine import notes_of

    report = telling.report()
    if (source is None) == (tallies is None):
        raise InputError("give either -i (a cohort) or --tallies (the store of an earlier fit)")
    if average not in (None, "probabilities", "logits"):
        raise InputError("it must be probabilities or logits", argument="--average", value=average)
    for file in (output, band):
        if file is not None:
            check_file_place(file)
    if tallies is None:
        store = store or output.with_name(f"{output.stem}.tallies")
    for folder in (leave_one_out, store):
        if folder is not None:
            check_folder_place(folder)
    _check_apart(
        {"-o": output, "--band": band},
        {"-i": source, "--leave-one-out": leave_one_out, "--store": store},
    )
    calibrator = Calibrator(
        target.value,
        bins=_bins(bins),
        rater=rater - 1,
        exact=exact,
        folds=folds,
        seed=seed,
        ensemble=None if average is None else {"average": average},
    )
    calibrator.check_parameters()
    among_cases = {
        "--band": band is not None,
        "--leave-one-out": leave_one_out is not None,
        "--bins auto": calibrator.bins == "auto" and target is not Target.none,
    }
    if tallies is None and run.parts > 1 and (band or leave_one_out):
        raise InputError(
            "a part of a run (-num_parts) only tallies: leave out --band and --leave-one-out, and "
            f"give them after all parts to twintrack fit --tallies {store} -o {output}"
        )
    failures: list[Failure] = []
    if tallies is not None:
        if exact:
            raise InputError("--exact reads the voxels again: give the cohort (-i), not --tallies")
        made_with, found = runs.read_tallies(
            tallies,
            region=None if region is None else region.value,
            only=only or (),
            without=without or (),
        )
        _check_number(len(found), among_cases)
        known = [("of the tallies", made_with["ensemble"] or {})]
        calibrator.set_params(ensemble=join_ensembles(known, calibrator.ensemble))
        store, rule = tallies, made_with["region"]
        runs.fit_tallies(calibrator, found, rule)
    else:
        assert source is not None  # noqa: S101 - one of the two was given

        def left_out(names: list[str]) -> None:
            report.warn(
                f"{len(names)} predictions have no annotations in {source} and are left out: "
                f"{', '.join(names[:3])}{', …' * (len(names) > 3)}"
            )

        cohort = options.read_cohort(
            source, predictions, raters, None, roi, only=only, without=without, left_out=left_out
        )
        rule = region.value if region is not None else runs.default_region(cohort)
        _check_number(len(cohort), among_cases)
        if target is Target.single and cohort and rater > len(cohort[0].raters):
            raise InputError(
                f"there are only {len(cohort[0].raters)} raters", argument="--rater", value=rater
            )
        cases = run.part_of(cohort)
        job = runs.TallyJob(rule, options.classes(tumour), ignore_header)
        assert store is not None  # noqa: S101 - beside -o by default
        if run.dry_run:
            run.print_plan(report, cases, job, store)
            return
        if run.parts > 1:
            with run.settings(report) as settings:
                outcomes, _ = runs.tally_cohort(cases, job, store, settings, cohort)
            failures = [outcome.failure for outcome in outcomes if outcome.failure is not None]
            _warn_of_marks(report, runs.marked_outside(outcomes))
            report.warn_of_notes(notes_of(outcomes))
            runs.check_failures(failures, len(cases), skip_broken)
            report.result(
                f"Part {run.part} of {run.parts} is tallied",
                [("store", store), ("then", f"twintrack fit --tallies {store} -o {output}")],
                store=str(store),
            )
            raise typer.Exit(1 if failures else 0)
        with run.settings(report) as settings:
            fitted = runs.fit_cohort(
                cases, calibrator, job, store, skip_broken=skip_broken, settings=settings
            )
        failures = fitted.failures
        _warn_of_marks(report, fitted.marked_outside)
        report.warn_of_notes(fitted.notes)
        _check_number(len(cases) - len(failures), among_cases)
    # The calibrator comes last: where it is, everything is that was asked for with it.
    if leave_one_out is not None or band is not None:
        assert store is not None  # noqa: S101 - of this run, or given as --tallies
        where = {"region": rule, "only": only or (), "without": without or ()}
        if leave_one_out is not None:
            _leave_one_out(calibrator, store, where, leave_one_out)
        if band is not None:
            _band(calibrator, store, where, band, seed)
    calibrator.save(output)
    _tell(report, calibrator, output, failures)
    raise typer.Exit(1 if failures else 0)


def _bins(text: str) -> Any:
    if text == "auto":
        return "auto"
    try:
        return int(text)
    except ValueError:
        raise InputError("it must be a number or auto", argument="--bins", value=text) from None


def _check_apart(files: Mapping[str, Path | None], others: Mapping[str, Path | None]) -> None:
    """Refuse to write a file where another is written, or what is read."""
    taken: dict[Path, str] = {}
    for option, place in {**others, **files}.items():
        if place is None:
            continue
        known = taken.setdefault(place.resolve(), option)
        if known != option and option in files:
            raise InputError(f"{option} is {place}, which {known} is too; choose another name")


def _check_number(cases: int, among_cases: Mapping[str, bool]) -> None:
    """Refuse, before anything is written, what a single case cannot give."""
    for option, asked in among_cases.items():
        if asked and cases < 2:
            raise InputError(
                f"{option} compares cases, so it needs at least two, here {cases}: leave out "
                f"{option}, or fit to more cases"
            )


def _warn_of_marks(report: Report, marked_outside: Mapping[str, int]) -> None:
    """Tell which raters' marks are no part of the fit, as their scores are crops without them."""
    if marked_outside:
        named = [f"{case} ({voxels:,} voxels)" for case, voxels in marked_outside.items()]
        report.warn(
            f"raters mark voxels outside of what the score covers in {len(named)} cases; they do "
            f"not count: {', '.join(named[:3])}{', …' * (len(named) > 3)}"
        )


def _leave_one_out(
    calibrator: Calibrator, store: Path, where: Mapping[str, Any], folder: Path
) -> None:
    from twintrack.runs.fit import leave_one_out, read_tallies

    folder.mkdir(parents=True, exist_ok=True)
    fits = leave_one_out(calibrator, lambda: read_tallies(store, **where)[1], where["region"])
    for case, fitted in fits:
        fitted.save(folder / f"{case}.json")


def _band(
    calibrator: Calibrator, store: Path, where: Mapping[str, Any], path: Path, seed: int
) -> None:
    from twintrack.files import csv_text, write_text
    from twintrack.runs.case_band import band_over_cases
    from twintrack.runs.fit import read_tallies

    found = band_over_cases(calibrator, read_tallies(store, **where)[1], seed=seed)
    columns = (found.score, found.value, found.low, found.high)
    rows = ([repr(float(value)) for value in row] for row in zip(*columns, strict=True))
    write_text(path, csv_text(["score", "map", "low", "high"], rows))


def _tell(
    report: Report, calibrator: Calibrator, output: Path, failures: Sequence[Failure]
) -> None:
    made_of = calibrator.provenance_
    bins = made_of["bins"]
    rows = [
        ("cases", f"{made_of['cases']:,}" + (f" ({len(failures)} broken)" if failures else "")),
        ("raters", made_of["raters"]),
        ("voxels", f"{made_of['voxels']:,} {_REGIONS.get(made_of['region'], '')}"),
    ]
    if bins is not None:
        rows += [
            ("bins", f"{bins['made']} of {bins['asked']} asked for"),
            ("largest bin", f"{bins['largest_share']:.2%} of the voxels"),
        ]
    x, y = calibrator.X_thresholds_, calibrator.y_thresholds_
    rows += [
        ("knots", len(x)),
        ("map", f"{x[0]:.4g} → {y[0]:.4g}  …  {x[-1]:.4g} → {y[-1]:.4g}"),
        ("written to", output),
    ]
    report.result(
        f"Calibrator for {_TARGETS[made_of['target']]}",
        rows,
        output=str(output),
        knots=len(x),
        failed=len(failures),
        **{
            name: made_of[name]
            for name in ("target", "raters", "cases", "voxels", "region", "bins")
        },
    )
    choice = made_of["cross_validation"]
    if choice is not None:
        best = min(choice["scores"].values())
        report.table(
            f"Bins by {choice['folds']}-fold cross-validation",
            ("bins", "Brier score", "above the best"),
            [
                (bins, f"{score:.6f}", f"{score - best:.2e}" if score > best else "best")
                for bins, score in choice["scores"].items()
            ],
            **choice,
        )
    if bins is not None and bins["largest_share"] > 0.5:
        report.warn(
            f"one bin holds {bins['largest_share']:.0%} of the voxels, for their scores are equal "
            "or nearly so; a smaller region (--region) leaves more bins to the tumour"
        )


_TARGETS = {
    "mhr": "the mean human response",
    "single": "one rater",
    "hard": "hard labels, averaged over raters",
    "none": "nothing (the identity)",
}

_REGIONS = {
    "roi": "inside the roi masks",
    "box": "inside the boxes around all annotations, grown by 20 voxels",
    "all": "in all",
}
