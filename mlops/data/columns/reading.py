"""What the columns of a training table are, and how their cells are read.

Decided once, from the table that a study is begun with; after that a column alone says how a cell
is read (`mlops.data.columns.encoders`). A column that is read has one of three types: numbers, NaN
for a gap; `pandas.Categorical` of the texts of levels; times (datetime64, UTC).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from pandas.api.types import is_float_dtype, is_object_dtype

from mlops.data.cells.dates import ISO_DATES, LEAST_DATES, DateFormat, FoundDates, find_dates
from mlops.data.cells.levels import joined
from mlops.data.cells.numbers import PLAIN, Found, NumberFormat, find_format
from mlops.data.cells.spelling import EXACT_DOUBLE, is_gap, tidy
from mlops.data.columns.date_columns import times_of
from mlops.data.columns.kinds import Kind, numbers_of, plain_numbers, some_of, texts_of, type_of
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
FoundT = TypeVar("FoundT", Found, FoundDates | None)


def _row_number(row: int) -> int:
    return row + 1


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
    line_of: LineOf = _row_number,
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
        return _as_dates(name, values, DateFormat(), line_of)
    if kind == "duration" and wish is None:
        return _as_numbers(name, values, CLOCK, line_of)
    if wish in ("date", "day_first", "month_first"):
        return _of_dates(name, values, wish, line_of)
    if wish in ("decimal_comma", "decimal_point"):
        decimal = "," if wish == "decimal_comma" else "."
        form = _found(partial(find_format, only=decimal), *_counted(name, values)).format
        return _as_numbers(name, values, form, line_of)
    if wish == "categorical" or (wish != "numeric" and kind in ("boolean", "category", "empty")):
        return _as_levels(name, values)
    if kind == "number":
        if wish is None and _loses_digits(values):
            return _as_levels(name, values, _long_numbers(name))
        return _as_numbers(name, values, PLAIN, line_of)
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
        return _as_numbers(name, values, found.format, line_of, found)
    kind, notes = _kind_of_text(name, found, texts, rows)
    if kind == "categorical":
        few = found.numbers <= found.n_odd
        read = _of_times(name, values, texts, rows, line_of) if few else None
        return read or _as_levels(name, values, *notes)
    read = _as_numbers(name, values, found.format, line_of, found)
    return ReadColumn(read.reading, read.values, (*notes, *read.notes))


def _of_times(
    name: str, values: Any, texts: Sequence[str], rows: np.ndarray, line_of: LineOf
) -> ReadColumn | None:
    """Reads a column of text as dates, or as durations, if it holds such."""
    dates = _found(find_dates, texts, rows)
    if dates is not None:
        return _as_dates(name, values, dates.format, line_of, guessed=dates.guessed)
    cells = {text: n for text, n in _looked_at(texts, rows).items() if not is_gap(text)}
    words = [text for text in cells if _is_no_date(text)]
    n_words = sum(cells[word] for word in words)
    if words and len(words) <= FEW_WORDS and n_words <= MOST_WORDS_SHARE * sum(cells.values()):
        dates = find_dates({text: n for text, n in cells.items() if text not in words})
        if dates is not None:
            note = _many_odd_cells(name, {word: cells[word] for word in words})
            read = _as_dates(name, values, dates.format, line_of, guessed=dates.guessed)
            return ReadColumn(read.reading, read.values, (note, *read.notes))
    clocks = sum(n for text, n in cells.items() if CLOCK.read(text) is not None)
    if cells and clocks >= LEAST_DATES * sum(cells.values()):
        return _as_numbers(name, values, CLOCK, line_of)
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
        return _as_dates(name, values, DateFormat(), line_of)
    texts, rows = _counted(name, values)
    dates = _found(find_dates, texts, rows)
    if dates is None:
        raise TableError(
            f"column `{name}` must hold dates, as `data.columns` says, got {some_of(texts)}; write "
            "them as 2024-12-31, or leave it out there"
        )
    if wish != "date":
        form = dates.format.with_first("day" if wish == "day_first" else "month")
        return _as_dates(name, values, form, line_of)
    return _as_dates(name, values, dates.format, line_of, guessed=dates.guessed)


def _as_dates(
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


def _as_numbers(
    name: str, values: Any, form: NumberFormat, line_of: LineOf, found: Found | None = None
) -> ReadColumn:
    plain = _plain(values)
    if plain is not None and plain.dtype.kind in "iuf" and not np.isinf(plain).any():
        return ReadColumn(Reading(name, "numeric", form), plain)
    notes = []
    numbers, odd = numbers_of(name, values, form, single=_is_single(values))
    known = numbers[~np.isnan(numbers)]
    if len(odd) and np.isin(known, (0.0, 1.0)).all():
        numbers, odd = numbers_of(name, values, form, single=_is_single(values), binary=True)
    if form.told():
        guess = f", which is a guess; {OTHERWISE} (decimal_comma, decimal_point)"
        guess = guess if found and found.guessed else ""
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


def _as_levels(name: str, values: Any, *notes: Note) -> ReadColumn:
    codes, texts = texts_of(name, values)
    rows = np.bincount(codes + 1, minlength=len(texts) + 1).tolist()
    counts = {"": rows[0]}
    for text, count in zip(texts, rows[1:], strict=True):
        counts[text] = counts.get(text, 0) + count
    level_of = joined(counts)
    levels = _categorical(codes, [level_of[text] for text in texts])
    return ReadColumn(Reading(name, "categorical"), levels, notes)


def _categorical(codes: np.ndarray, texts: Sequence[str | None]) -> pd.Categorical:
    places: dict[str, int] = {}
    moved = [-1 if text is None else places.setdefault(text, len(places)) for text in texts]
    codes = np.array([*moved, -1], dtype=np.int64)[codes]
    return pd.Categorical.from_codes(codes, pd.Index(list(places), dtype=object))


def read_as(reading: Reading, values: Any, line_of: LineOf = _row_number) -> ReadColumn:
    """Reads a raw column of another table, as the training table's is.

    Raises:
        TableError: Its cells are no single values.
    """
    if reading.kind == "categorical":
        # What is a level is the fitted column's to say.
        return ReadColumn(reading, _categorical(*texts_of(reading.name, values)))
    if reading.kind == "date":
        return _as_dates(reading.name, values, reading.dates, line_of)
    return _as_numbers(reading.name, values, reading.numbers, line_of)


def _plain(values: Any) -> np.ndarray | None:
    """Returns the numpy array that a column is, if it is one."""
    if isinstance(values, np.ndarray):
        return values
    return values.to_numpy() if isinstance(values, pd.arrays.NumpyExtensionArray) else None


def _is_single(values: Any) -> bool:
    return str(values.dtype) in ("float32", "float16", "Float32", "float[pyarrow]")


def _loses_digits(values: Any) -> bool:
    """Tells whether as floats some whole numbers would be taken for one another."""
    if is_float_dtype(values.dtype):
        return False
    plain = _plain(values)
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
