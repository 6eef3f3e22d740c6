"""What the columns of a training table are, and how their cells are read.

Decided once, from the table that a study is begun with; after that a column alone says how a cell
is read (`mlops.data.columns.encoders`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from pandas.api.types import is_float_dtype, is_object_dtype

from mlops.data.cells.date_formats import LEAST_DATES, FoundDates, find_dates
from mlops.data.cells.dates import DateFormat
from mlops.data.cells.number_formats import Found, find_format
from mlops.data.cells.numbers import PLAIN
from mlops.data.cells.spelling import EXACT_DOUBLE, is_gap, tidy
from mlops.data.columns.kinds import Kind, plain_numbers, some_of, texts_of, type_of
from mlops.data.columns.reading import (
    CLOCK,
    OTHERWISE,
    LineOf,
    ReadColumn,
    Reading,
    as_dates,
    as_levels,
    as_numbers,
    plain_array,
    row_number,
)
from mlops.data.notes import Note
from mlops.errors import TableError
from mlops.settings.wishes import Wish, wish_for

# Of the cells of a column of numbers at most this share may be odd, and of one with few distinct
# numbers, which may well be names of levels, fewer.
MOST_ODD = 0.05
MOST_ODD_OF_FEW = 0.01
# With so many distinct numbers a few odd words do not make it a column of levels, however frequent.
MANY_NUMBERS = 20
FEW_WORDS = 3
MOST_WORDS_SHARE = 0.5
# More cells that are written as codes, 007, and the column holds codes.
MOST_CODES = 0.02
# Formats are looked for among so many distinct texts.
TEXTS_LOOKED_AT = 10_000
FoundT = TypeVar("FoundT", Found, FoundDates | None)


def read_frame(frame: pd.DataFrame, wishes: Mapping[str, Wish] | None = None) -> list[ReadColumn]:
    """Decides how each column of a raw frame is read, and reads it.

    Raises:
        TableError: A column cannot be used; one line for each such column.
    """
    read, problems = [], []
    for name, values in frame.items():
        try:
            read.append(read_column(str(name), values.array, wish_for(str(name), wishes or {})))
        except TableError as error:
            problems += error.problems
    if problems:
        raise TableError(problems)
    return read


def read_column(
    name: str,
    values: Any,
    wish: Wish | None = None,
    *,
    decimal: str = ".",
    line_of: LineOf = row_number,
) -> ReadColumn:
    """Decides what a raw column of a training table is, and reads it.

    Args:
        name: The column's name.
        values: A pandas array or an array of objects: [N].
        wish: What the user says that it is.
        decimal: The likelier decimal sign where texts can be read both ways.
        line_of: The line of the file that a row is in.

    Raises:
        TableError: It cannot be used, or not as it is wished.
    """
    kind = type_of(name, values)
    if kind == "time" and wish is None:
        return as_dates(name, values, DateFormat(), line_of)
    if kind == "duration" and wish is None:
        return as_numbers(name, values, CLOCK, line_of)
    if wish in ("date", "day_first", "month_first"):
        return _of_dates(name, values, wish, line_of)
    if wish in ("decimal_comma", "decimal_point"):
        decimal = "," if wish == "decimal_comma" else "."
        form = _found(partial(find_format, only=decimal), *_counted(name, values)).format
        return as_numbers(name, values, form, line_of)
    if wish == "categorical" or (wish != "numeric" and kind in ("boolean", "category", "empty")):
        return as_levels(name, values)
    if kind == "number":
        if wish is None and _loses_digits(values):
            return as_levels(name, values, _long_numbers(name))
        return as_numbers(name, values, PLAIN, line_of)
    return _of_text(name, values, wish, decimal, line_of)


def _of_text(
    name: str, values: Any, wish: Wish | None, decimal: str, line_of: LineOf
) -> ReadColumn:
    if not is_object_dtype(values.dtype) and decimal == ".":
        numbers = plain_numbers(values, with_codes=wish == "numeric")
        if numbers is not None:
            return ReadColumn(Reading(name, "numeric"), numbers)
    texts, rows = _counted(name, values)
    found = _found(partial(find_format, decimal=decimal), texts, rows)
    if wish == "numeric":
        return as_numbers(name, values, found.format, line_of, guessed=found.guessed)
    kind, notes = _kind_of_text(name, found, texts, rows)
    if kind == "categorical":
        few = found.numbers <= found.n_odd
        read = _of_times(name, values, texts, rows, line_of) if few else None
        return read or as_levels(name, values, *notes)
    read = as_numbers(name, values, found.format, line_of, guessed=found.guessed)
    return ReadColumn(read.reading, read.values, (*notes, *read.notes))


def _of_times(
    name: str, values: Any, texts: Sequence[str], rows: np.ndarray, line_of: LineOf
) -> ReadColumn | None:
    """Reads a column of text as dates, or as durations, if it holds such."""
    dates = _found(find_dates, texts, rows)
    if dates is not None:
        return as_dates(name, values, dates.format, line_of, guessed=dates.guessed)
    cells = {text: n for text, n in _looked_at(texts, rows).items() if not is_gap(text)}
    words = [text for text in cells if _is_no_date(text)]
    n_words = sum(cells[word] for word in words)
    if words and len(words) <= FEW_WORDS and n_words <= MOST_WORDS_SHARE * sum(cells.values()):
        dates = find_dates({text: n for text, n in cells.items() if text not in words})
        if dates is not None:
            note = _many_odd_cells(name, {word: cells[word] for word in words})
            read = as_dates(name, values, dates.format, line_of, guessed=dates.guessed)
            return ReadColumn(read.reading, read.values, (note, *read.notes))
    clocks = sum(n for text, n in cells.items() if CLOCK.read(text) is not None)
    if cells and clocks >= LEAST_DATES * sum(cells.values()):
        return as_numbers(name, values, CLOCK, line_of)
    return None


def _is_no_word(text: str) -> bool:
    """Tells what cannot well be the name of a level: `-`, `**`, `#DIV/0!`."""
    text = tidy(text)
    return text.startswith("#") or not any(letter.isalnum() for letter in text)


def _is_no_date(text: str) -> bool:
    """Tells what stands for no date: a word, or zeros in its place."""
    return not any(letter.isdigit() and letter != "0" for letter in text)


def _counted(name: str, values: Any) -> tuple[list[str], np.ndarray]:
    """Returns the distinct texts of a column, and the rows of each."""
    codes, texts = texts_of(name, values)
    return texts, np.bincount(codes[codes >= 0], minlength=len(texts))


def _of_dates(name: str, values: Any, wish: Wish, line_of: LineOf) -> ReadColumn:
    """Reads a column as dates, as it is wished."""
    if type_of(name, values) == "time":
        return as_dates(name, values, DateFormat(), line_of)
    texts, rows = _counted(name, values)
    dates = _found(find_dates, texts, rows)
    if dates is None:
        raise TableError(
            f"column `{name}` must hold dates, as `data.columns` says, got {some_of(texts)}; write "
            "them as 2024-12-31, or leave it out there"
        )
    if wish != "date":
        form = dates.format.with_first("day" if wish == "day_first" else "month")
        return as_dates(name, values, form, line_of)
    return as_dates(name, values, dates.format, line_of, guessed=dates.guessed)


def _many_odd_cells(name: str, words: Mapping[str, int]) -> Note:
    return Note(
        "many_odd_cells",
        f"{sum(words.values()):,} cells are words, and gaps now; if they mean something, "
        f"{OTHERWISE} (categorical)",
        column=name,
        cells=sum(words.values()),
        example=next(iter(words)),
        warning=True,
    )


def _long_numbers(name: str) -> Note:
    told = f"whole numbers that differ only beyond 15 digits, read as categories; {OTHERWISE}"
    return Note("long_numbers", told, column=name)


def _looked_at(texts: Sequence[str], rows: np.ndarray) -> dict[str, int]:
    """Returns the most frequent texts with their rows, of equally frequent ones any.

    The first of these would not do: those of a table in order of its dates or prices are all alike.
    """
    places = np.arange(len(texts))
    if len(texts) > TEXTS_LOOKED_AT:
        any_order = np.random.default_rng(0).permutation(len(texts))
        by_rows = np.argsort(-rows[any_order], kind="stable")[:TEXTS_LOOKED_AT]
        places = np.sort(any_order[by_rows])
    order = places[np.argsort(-rows[places], kind="stable")]
    return {texts[i]: int(rows[i]) for i in order}


def _found(
    find: Callable[[Mapping[str, int]], FoundT], texts: Sequence[str], rows: np.ndarray
) -> FoundT:
    """Finds how texts write dates or numbers: among some, or all where these leave it open."""
    found = find(_looked_at(texts, rows))
    if found is None or not found.guessed or len(texts) <= TEXTS_LOOKED_AT:
        return found
    return find(dict(zip(texts, rows.tolist(), strict=True))) or found


def _kind_of_text(
    name: str, found: Found, texts: Sequence[str], rows: np.ndarray
) -> tuple[Kind, list[Note]]:
    """Decides between numbers and levels."""
    n_odd, n_numbers = found.n_odd, found.numbers
    cells = n_odd + n_numbers
    if n_numbers == 0 or found.codes > MOST_CODES * n_numbers:
        return "categorical", []
    if _merges(texts):
        return "categorical", [_long_numbers(name)]
    many = found.distinct >= MANY_NUMBERS or all(map(_is_no_word, found.odd))
    if n_odd <= (MOST_ODD if many else MOST_ODD_OF_FEW) * cells:
        return "numeric", []
    if many and len(found.odd) <= FEW_WORDS and n_odd <= MOST_WORDS_SHARE * cells:
        return "numeric", [_many_odd_cells(name, found.odd)]
    if n_numbers >= cells / 2:
        note = Note(
            "numbers_and_words",
            f"{n_numbers:,} of {cells:,} cells are numbers, too few to be sure, so read as "
            f"categories; {OTHERWISE} (numeric)",
            column=name,
            cells=n_odd,
            example=next(iter(found.odd)),
            warning=many,
        )
        return "categorical", [note]
    return "categorical", []


def _loses_digits(values: Any) -> bool:
    """Tells whether as floats some whole numbers would be taken for one another."""
    if is_float_dtype(values.dtype):
        return False
    plain = plain_array(values)
    if (
        plain is not None
        and plain.dtype.kind in "iu"
        and len(plain)
        and (max(int(plain.max()), -int(plain.min())) < EXACT_DOUBLE)
    ):
        return False
    distinct = pd.unique(pd.Series(values).dropna())
    try:
        return len({float(number) for number in distinct}) < len(distinct)
    except (TypeError, ValueError, OverflowError):
        return False


def _merges(texts: Sequence[str]) -> bool:
    long = {tidy(text) for text in texts if len(text) > 15 and tidy(text).lstrip("+-").isdigit()}
    return len({float(text) for text in long}) < len(long)
