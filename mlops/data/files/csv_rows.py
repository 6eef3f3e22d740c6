"""Rows of a CSV file with the lines that they are in: what is wrong with them, and where.

Slow, as Python's own `csv`; asked only when something is to be told about a row.
"""

from __future__ import annotations

import csv
import io
from array import array
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mlops.data.files.dialects import Dialect, split_rows
from mlops.data.files.opening import opened

if TYPE_CHECKING:
    from collections.abc import Sequence

OPEN_LINES = 10  # a cell of so many lines that look like rows is taken for a quote left open


class Row(NamedTuple):
    """A row as it is written.

    Attributes:
        cells: Its cells.
        first: The line, from 1, in which it begins.
        last: The line in which it ends.
        text: Its lines.
    """

    cells: list[str]
    first: int
    last: int
    text: list[str]


def rows_of(path: Path, dialect: Dialect) -> Generator[Row, None, None]:
    """Reads the rows below the header; lines without any cell are left out.

    Raises:
        UnicodeDecodeError: The text is not in the encoding.
    """
    csv.field_size_limit(2**31 - 1)
    with opened(path) as (file, _), io.TextIOWrapper(file, dialect.encoding, newline="") as text:
        taken: list[str] = []

        def lines() -> Iterator[str]:
            for place, line in enumerate(text):
                if place >= dialect.head_lines:
                    taken.append(line)
                    yield line

        reader = csv.reader(lines(), delimiter=dialect.separator, skipinitialspace=True)
        first = dialect.head_lines + 1
        for cells in reader:
            last = dialect.head_lines + reader.line_num
            if cells:
                yield Row(cells, first, last, taken)
            first, taken = last + 1, []


def first_lines_of_rows(path: Path, dialect: Dialect) -> Sequence[int]:
    """Returns the line, from 1, in which each row begins."""
    return array("q", (row.first for row in rows_of(path, dialect)))


def find_fault(path: Path, dialect: Dialect) -> str | None:
    """Looks for the first row that is not as it should be.

    Returns:
        What is wrong with it, in a line; None if nothing is found.
    """
    with closing(rows_of(path, dialect)) as rows:
        return _first_fault(rows, dialect)


def _first_fault(rows: Iterator[Row], dialect: Dialect) -> str | None:
    row = None
    for row in rows:
        lines = row.last - row.first + 1
        if len(row.cells) != dialect.width:
            if lines > 1:
                return open_quote_problem(row.first, lines)
            return _width_problem(row, dialect)
        if any(is_open_quote(cell, dialect) for cell in row.cells if lines >= OPEN_LINES):
            return open_quote_problem(row.first, lines)
    if row is not None and _is_cut(row, dialect.separator):
        return (
            f"line {row.first:,} opens a quote that is not closed by the end of the file; close "
            "it, or fetch the file again if it was cut off"
        )
    return None


def is_open_quote(cell: str, dialect: Dialect) -> bool:
    """Tells whether a cell of many lines has swallowed rows, most of its lines being such."""
    lines = list(io.StringIO(cell, newline=""))
    if len(lines) < OPEN_LINES or dialect.width < 2:
        return False
    inner = split_rows(lines[1:-1], dialect.separator)
    return sum(len(row) == dialect.width for row in inner) > len(lines) / 2


def open_quote_problem(line: int, lines: int) -> str:
    """Says of a row that begins in a line and takes some that a quote is left open."""
    return (
        f"line {line:,} must close its quotes, got a row of {lines:,} lines, up to line "
        f'{line + lines - 1:,}; close the quote, or write "" for a quote inside of a cell'
    )


def _width_problem(row: Row, dialect: Dialect) -> str:
    found, wanted = len(row.cells), dialect.width
    if found > wanted:
        remedy = "put quotes around a cell that holds the separator, or name every column"
    elif not row.text[-1].endswith(("\n", "\r")):
        remedy = "it is the last line, so that the file may have been cut off: fetch it again"
    else:
        remedy = "complete the row or take it out"
    cells = f"{found} cell{'s' if found > 1 else ''}"
    return (
        f"line {row.first:,} must have as many cells as the header, {wanted}, got {cells}; {remedy}"
    )


def _is_cut(row: Row, separator: str) -> bool:
    try:
        list(csv.reader(row.text, delimiter=separator, skipinitialspace=True, strict=True))
    except csv.Error as error:
        return "unexpected end" in str(error)
    return False
