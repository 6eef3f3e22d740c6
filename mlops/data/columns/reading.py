"""How a whole raw column is read, once it is known how (`mlops.data.columns.finding`).

A column that is read has one of three types: numbers, NaN for a gap; `pandas.Categorical` of the
texts of levels; times (datetime64, UTC).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mlops.data.cells.dates import ISO_DATES, DateFormat
from mlops.data.cells.levels import joined
from mlops.data.cells.numbers import PLAIN, NumberFormat
from mlops.data.columns.date_columns import times_of
from mlops.data.columns.kinds import Kind, numbers_of, texts_of
from mlops.data.notes import Note

CLOCK = NumberFormat(clock=True)
OTHERWISE = "say otherwise with `data.columns`"


@dataclass(frozen=True)
class Reading:
    """How one column is read.

    Attributes:
        name: The column.
        kind: What it holds.
        numbers: How texts write its numbers.
        dates: How texts write its dates.
    """

    name: str
    kind: Kind
    numbers: NumberFormat = PLAIN
    dates: DateFormat = ISO_DATES


@dataclass(frozen=True, eq=False)
class ReadColumn:
    """A column that has been read.

    Attributes:
        reading: How.
        values: Numbers, a `Categorical` or times: [N].
        notes: What was noticed.
    """

    reading: Reading
    values: Any
    notes: tuple[Note, ...] = ()


LineOf = Callable[[int], int | None]


def row_number(row: int) -> int:
    return row + 1


def as_dates(
    name: str, values: Any, form: DateFormat, line_of: LineOf, *, guessed: bool = False
) -> ReadColumn:
    notes = []
    times, odd = times_of(name, values, form)
    if form != DateFormat():
        guess = ", which is a guess: no part is above 12" if guessed else ""
        other = f"; {OTHERWISE} (day_first, month_first)" if "%m" in form.form else ""
        told = f"dates as {form.told()}{guess}{other}"
        notes.append(Note("date_format", told, column=name, warning=guessed))
    if getattr(values.dtype, "tz", None) is not None:
        notes.append(Note("time_zone", "times with a zone, read in UTC", column=name))
    if len(odd):
        notes.append(_odd_cells(name, values, odd, "a date", line_of))
    return ReadColumn(Reading(name, "date", dates=form), times, tuple(notes))


def _odd_cells(name: str, values: Any, odd: np.ndarray, what: str, line_of: LineOf) -> Note:
    first = int(odd[0])
    return Note(
        "odd_cells",
        f"{len(odd):,} cell(s) without {what}, gaps now",
        column=name,
        cells=len(odd),
        line=line_of(first),
        example=str(values[first]),
    )


def as_numbers(
    name: str, values: Any, form: NumberFormat, line_of: LineOf, *, guessed: bool = False
) -> ReadColumn:
    plain = plain_array(values)
    if plain is not None and plain.dtype.kind in "iuf" and not np.isinf(plain).any():
        return ReadColumn(Reading(name, "numeric", form), plain)
    notes = []
    numbers, odd = numbers_of(name, values, form, single=_is_single(values))
    known = numbers[~np.isnan(numbers)]
    if len(odd) and np.isin(known, (0.0, 1.0)).all():
        numbers, odd = numbers_of(name, values, form, single=_is_single(values), binary=True)
    if form.told():
        guess = f", which is a guess; {OTHERWISE} (decimal_comma, decimal_point)"
        guess = guess if guessed else ""
        notes.append(
            Note(
                "number_format",
                f"numbers with {form.told()}{guess}",
                column=name,
            )
        )
    if len(odd):
        notes.append(_odd_cells(name, values, odd, "a finite number", line_of))
    if _is_single(values):
        numbers = numbers.astype(np.float32)
    return ReadColumn(Reading(name, "numeric", form), numbers, tuple(notes))


def as_levels(name: str, values: Any, *notes: Note) -> ReadColumn:
    codes, texts = texts_of(name, values)
    rows = np.bincount(codes + 1, minlength=len(texts) + 1).tolist()
    counts = {"": rows[0]}
    for text, count in zip(texts, rows[1:], strict=True):
        counts[text] = counts.get(text, 0) + count
    level_of = joined(counts)
    levels = categorical_of(codes, [level_of[text] for text in texts])
    return ReadColumn(Reading(name, "categorical"), levels, notes)


def categorical_of(codes: np.ndarray, texts: Sequence[str | None]) -> pd.Categorical:
    places: dict[str, int] = {}
    moved = [-1 if text is None else places.setdefault(text, len(places)) for text in texts]
    codes = np.array([*moved, -1], dtype=np.int64)[codes]
    return pd.Categorical.from_codes(codes, pd.Index(list(places), dtype=object))


def read_as(reading: Reading, values: Any, line_of: LineOf = row_number) -> ReadColumn:
    """Reads a raw column of another table, as the training table's is.

    Raises:
        TableError: Its cells are no single values.
    """
    if reading.kind == "categorical":
        # What is a level is the fitted column's to say.
        return ReadColumn(reading, categorical_of(*texts_of(reading.name, values)))
    if reading.kind == "date":
        return as_dates(reading.name, values, reading.dates, line_of)
    return as_numbers(reading.name, values, reading.numbers, line_of)


def plain_array(values: Any) -> np.ndarray | None:
    """Returns the numpy array that a column is, if it is one."""
    if isinstance(values, np.ndarray):
        return values
    return values.to_numpy() if isinstance(values, pd.arrays.NumpyExtensionArray) else None


def _is_single(values: Any) -> bool:
    return str(values.dtype) in ("float32", "float16", "Float32", "float[pyarrow]")
