"""The page of a study: an answer in a sentence for each question, its table, and figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from twintrack.files import replacing
from twintrack.report import study_figures
from twintrack.report.figures import png, svg
from twintrack.report.html import Picture, page_environment
from twintrack.report.rounding import rounded_column
from twintrack.runs.study import Study
from twintrack.runs.study_table import StudyTable
from twintrack.version import __version__

_DRAWN = {
    "bins": (
        study_figures.bins_figure,
        "Brier score, TDSC and largest calibrated score by the number of bins",
    ),
    "learning": (
        study_figures.learning_figure,
        "Brier score and TDSC of maps of few patients against those of all",
    ),
    "sizes": (study_figures.sizes_figure, "volume ratio by quarter of the predicted size"),
}
_TABLES = ("methods", "bins", "learning", "transfer", "regions", "sizes")


def write_study(
    found: Study, out: Path, title: str = "What a map needs, and what it is worth"
) -> None:
    """Write ``study.html``, a CSV file for each table, and ``figures/*.svg`` and ``*.png``.

    The folder is made if need be, and files of an earlier study are replaced. The same study gives
    the same bytes.

    Raises
    ------
    OSError
        A file cannot be written.
    """
    files: dict[str, bytes] = {}
    pictures = {}
    for table in found.tables:
        files[f"{table.key}.csv"] = table.csv().encode()
        if table.key in _DRAWN:
            draw, alt = _DRAWN[table.key]
            drawing = draw(table)
            vector = files[f"figures/{table.key}.svg"] = svg(drawing)
            files[f"figures/{table.key}.png"] = png(drawing)
            pictures[table.key] = Picture(vector, "image/svg+xml", alt)
    files["study.html"] = _page(found, pictures, title).encode()
    (out / "figures").mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        with replacing(out / name) as temporary:
            temporary.write_bytes(content)
    for key in _TABLES:  # of an earlier study with more to show
        for name in (f"{key}.csv", f"figures/{key}.svg", f"figures/{key}.png"):
            if name not in files:
                (out / name).unlink(missing_ok=True)


def _page(found: Study, pictures: dict[str, Picture], title: str) -> str:
    return (
        page_environment()
        .get_template("study.html")
        .render(
            title=title,
            study=found,
            rows={table.key: shown_rows(table) for table in found.tables},
            pictures=pictures,
            version=__version__,
        )
    )


def shown_rows(table: StudyTable) -> list[tuple[str, list[str]]]:
    """Return the rows as people read them: by column with the same decimals."""
    texts = []
    for column in table.columns:
        values = column.scale * np.array(table.column(column.key))
        if column.decimals is None:
            texts.append([text for (text,) in rounded_column(values[:, np.newaxis])])
        else:
            told = (f"{value:z.{column.decimals}f}" for value in values)
            texts.append(["–" if text == "nan" else text for text in told])
    return [
        (name, [column[k].replace("-", "−") for column in texts])
        for k, name in enumerate(table.names)
    ]
