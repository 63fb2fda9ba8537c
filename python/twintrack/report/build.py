"""From results to files: tables, figures and the HTML report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from twintrack.files import replacing
from twintrack.report.comparison import Comparison, Rule, compare_methods
from twintrack.report.examples import Example
from twintrack.report.maps import MapPlot
from twintrack.report.method_results import MethodResults
from twintrack.report.strata import strata, strata_csv
from twintrack.report.tables import (
    interval_csv,
    interval_table,
    latex,
    markdown,
    mean_csv,
    mean_table,
)
from twintrack.statistics import IntervalMethod


def build_report(
    methods: Mapping[str, MethodResults],
    out: Path,
    *,
    reference: str | None = None,
    resamples: int = 5000,
    seed: int = 0,
    level: float = 0.95,
    method: IntervalMethod = "percentile",
    rule: Rule = "both",
    title: str = "Calibration methods compared",
    introduction: str = "",
    maps: Sequence[MapPlot] = (),
    examples: Sequence[Example] | None = None,
) -> Comparison:
    """Compare methods and write everything there is to see about it.

    The same input gives the same bytes.

    Parameters
    ----------
    methods
        Name to results, in the order in which they are to be shown.
    out
        Folder for ``table1.*`` and ``table2.*`` (.md, .tex, .csv), ``strata.csv``,
        ``figures/*.svg`` and ``*.png`` and ``report.html``; made if need be, files of an earlier
        report are replaced.
    reference, resamples, seed, level, method, rule
        As in `compare_methods`.
    title, introduction
        Head of the report, plain text; blank lines in the introduction separate paragraphs.
    maps
        Calibration maps to draw.
    examples
        Slices for the qualitative figure; by default those of the reference, or else of the first
        method that has some.

    Returns
    -------
    comparison
        What the tables show.

    Raises
    ------
    ImportError
        Matplotlib or Jinja2 is not installed. Nothing has been written then.
    ValueError
        As `compare_methods`.
    OSError
        A file cannot be written.
    """
    # Here and not above: the tables alone must work without the optional libraries.
    from twintrack.report import figures, html

    comparison = compare_methods(methods, reference, resamples, seed, level, method, rule)
    if examples is None:
        candidates = [methods[comparison.reference], *methods.values()]
        examples = next((results.examples for results in candidates if results.examples), ())
    curves = {
        name: results.reliability
        for name, results in methods.items()
        if results.reliability is not None
    }
    drawn = {
        "reliability": figures.reliability_figure(curves, comparison.reference) if curves else None,
        "map": figures.map_figure(maps) if maps else None,
        "qualitative": figures.qualitative_figure(examples) if examples else None,
        "intervals": figures.interval_figure(comparison, columns=3),
        "paired": figures.paired_figure(comparison, columns=3),
    }
    vectors = {name: figures.svg(figure) for name, figure in drawn.items() if figure}
    pixels = {name: figures.png(figure) for name, figure in drawn.items() if figure}
    pictures: dict[str, list[html.Picture]] = {
        name: [html.Picture(vectors[name], "image/svg+xml", name)]
        for name in ("reliability", "map")
        if name in vectors
    }
    if examples:
        pictures["qualitative"] = [html.Picture(pixels["qualitative"], "image/png", "examples")]
    # A picture per metric, so that the page can set them in as many columns as it is wide.
    for name, draw in (("intervals", figures.interval_figure), ("paired", figures.paired_figure)):
        pictures[name] = [
            html.Picture(figures.svg(draw(comparison, [metric])), "image/svg+xml", metric.heading)
            for metric in comparison.metrics
        ]
    quarters = strata(comparison)
    page = html.render(comparison, methods, pictures, title, introduction, quarters)

    (out / "figures").mkdir(parents=True, exist_ok=True)
    files = {f"figures/{name}.svg": content for name, content in vectors.items()}
    files |= {f"figures/{name}.png": content for name, content in pixels.items()}
    files |= {name: text.encode() for name, text in _tables(comparison).items()}
    if quarters:
        files["strata.csv"] = strata_csv(quarters).encode()
    files["report.html"] = page.encode()
    for name, content in files.items():
        with replacing(out / name) as temporary:
            temporary.write_bytes(content)
    for name in _OPTIONAL - files.keys():  # of an earlier report with more to show
        (out / name).unlink(missing_ok=True)
    return comparison


_OPTIONAL = {"table2_further.md", "table2_further.tex", "strata.csv"} | {
    f"figures/{name}.{kind}"
    for name in ("reliability", "map", "qualitative")
    for kind in ("svg", "png")
}


def _tables(comparison: Comparison) -> dict[str, str]:
    """Tables 1 and 2 of the benchmark's metrics, and a table of further ones, by file name."""
    benchmark, further = comparison.split_metrics()
    first = mean_table(comparison, benchmark)
    second = interval_table(comparison, benchmark)
    contents = {
        "table1.md": markdown(first),
        "table1.tex": latex(first),
        "table1.csv": mean_csv(comparison),
        "table2.md": markdown(second),
        "table2.tex": latex(second),
        "table2.csv": interval_csv(comparison),
    }
    if further:
        more = interval_table(comparison, further)
        contents |= {"table2_further.md": markdown(more), "table2_further.tex": latex(more)}
    return contents
