"""StudyTable: what a study found about one question, with its answer in a sentence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from twintrack.arrays.by_value import ByValue
from twintrack.files import csv_text


class Column(NamedTuple):
    """A column of a table.

    Attributes
    ----------
    key
        Name in the CSV file, where values are as they are.
    label
        Heading where people read, of values multiplied by `scale`.
    better
        Which values are good; None where neither are.
    scale
        1,000 for Brier scores, 100 for shares shown as percentages.
    decimals
        With which people read them; None for three digits of the largest.
    """

    key: str
    label: str
    better: Literal["higher", "lower"] | None = None
    scale: float = 1.0
    decimals: int | None = None


@dataclass(frozen=True, eq=False)
class StudyTable(ByValue):
    """A table of a study.

    Attributes
    ----------
    key
        Name of its file.
    title, answer
        The question, and what the figures say to it in a sentence.
    head
        What its rows are.
    columns, rows
        Name of a row and its values, NaN where one is not defined.
    notes
        How figures are meant, and what is left out.
    """

    key: str
    title: str
    answer: str
    head: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, tuple[float, ...]], ...]
    notes: tuple[str, ...] = ()

    def column(self, key: str) -> list[float]:
        """Return the values of a column."""
        place = [column.key for column in self.columns].index(key)
        return [values[place] for _, values in self.rows]

    @property
    def names(self) -> list[str]:
        """Names of the rows."""
        return [name for name, _ in self.rows]

    def csv(self) -> str:
        """Return the table as CSV, at full precision; cells without a value are empty."""
        return csv_text(
            [self.head, *(column.key for column in self.columns)],
            [[name, *map(_written, values)] for name, values in self.rows],
        )


def _written(value: float) -> str:
    return "" if math.isnan(value) else repr(float(value))
