"""Workbooks (`.xlsx`): the first sheet, its first row the columns' names."""

from __future__ import annotations

import warnings
import zipfile
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from mlops.data.columns.names import check_names, stripped
from mlops.data.files.typed_rows import TypedRow, TypedRowsFile, schema_of
from mlops.data.notes import Note
from mlops.errors import TableError


class Workbook(TypedRowsFile):
    """The first sheet of a workbook; rows and columns without a cell are left out.

    Args:
        path: The file.

    Attributes:
        schema: The columns.
        n_rows: Number of rows.
        notes: That there are other sheets, if there are.

    Raises:
        TableError: The file is no workbook, or columns have no name or the same one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        notes: list[Note] = []
        with self._sheet() as (sheet, titles):
            if len(titles) > 1:
                text = (
                    f"of the {len(titles)} sheets the first, `{titles[0]}`, is read; save another "
                    "as a file of its own to read that"
                )
                notes.append(Note("sheets", text))
            header = next((row for _, row in _filled(sheet)), None)
        if header is None:
            raise TableError("the first sheet must have a header row and rows, got an empty sheet")
        names = ["" if cell is None else _name(cell) for cell in header]
        while names and not names[-1].strip():
            names.pop()
        self._names, blanks = stripped(names)
        check_names(self._names)
        self.notes = (*notes, *blanks)
        self.schema, n_rows = schema_of(self._rows(), self._names)
        self.n_rows = n_rows

    def line_of(self, row: int) -> int | None:
        """Returns the sheet's row, from 1, that a row of the table, from 0, is."""
        return self._lines_of_rows[row]

    @cached_property
    def _lines_of_rows(self) -> Sequence[int]:
        with self._sheet() as (sheet, _):
            return array("q", [place for place, _ in _filled(sheet)][1:])

    def _rows(self) -> Iterator[TypedRow]:
        with self._sheet() as (sheet, _):
            rows = _filled(sheet)
            next(rows)
            for place, row in rows:
                over = [cell for cell in row[len(self._names) :] if cell is not None]
                if over:
                    raise TableError(
                        f"row {place:,} of the sheet must have cells below names alone, got one in "
                        "a column without a name; name every column"
                    )
                yield dict(zip(self._names, row, strict=False))

    @contextmanager
    def _sheet(self) -> Iterator[tuple[Any, list[str]]]:
        import openpyxl

        with warnings.catch_warnings(), self._path.open("rb") as file:
            warnings.simplefilter("ignore")  # of styles and rules that it does not know
            try:
                book = openpyxl.load_workbook(file, read_only=True, data_only=True)
            except (zipfile.BadZipFile, KeyError, ValueError) as error:
                raise TableError(
                    f"the file must be a workbook, got: {str(error).strip() or 'another kind'}; "
                    "save it as .xlsx again"
                ) from error
            try:
                if not book.worksheets:
                    raise TableError("the workbook must have a sheet of cells, got charts alone")
                sheet = book.worksheets[0]
                sheet.reset_dimensions()  # what programs write there is wrong at times
                yield sheet, book.sheetnames
            finally:
                book.close()


def _filled(sheet: Any) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Yields the rows that have a cell, with their place from 1; blank texts are no cells."""
    for place, row in enumerate(sheet.iter_rows(values_only=True), start=1):
        if any(cell is not None for cell in row):
            yield place, row


def _name(cell: Any) -> str:
    return cell if isinstance(cell, str) else str(cell)
