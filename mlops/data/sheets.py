"""Tables whose cells have types of their own: lines of JSON, and sheets of Excel's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pandas as pd

from mlops.data.dialect import opened
from mlops.data.names import check_names
from mlops.data.notes import Note
from mlops.errors import TableError


def read_json_lines(path: Path) -> pd.DataFrame:
    """Reads a file of an object a line; a key that some lack is a gap there.

    Raises:
        TableError: A line is no object.
    """
    decode = msgspec.json.Decoder().decode
    rows = []
    with opened(path) as (file, _):
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise TableError(
                    f"line {number:,} must be an object of JSON, got: {error}; mend it"
                ) from error
            if not isinstance(row, dict):
                raise TableError(f"line {number:,} must be an object of JSON, got another value")
            rows.append(row)
    names = list(dict.fromkeys(name for row in rows for name in row))
    return _frame({name: [row.get(name) for row in rows] for name in names}, len(rows))


def read_sheet(path: Path) -> tuple[pd.DataFrame, list[Note]]:
    """Reads the first sheet of a workbook: its first row are the names, cells have their types.

    Raises:
        TableError: It is empty or no workbook.
    """
    import zipfile

    import openpyxl
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except (InvalidFileException, zipfile.BadZipFile, KeyError) as error:
        raise TableError(f"a workbook must be readable, got: {error}; save it anew") from error
    try:
        sheet = book.worksheets[0]
        rows = [row for row in sheet.iter_rows(values_only=True) if any(c is not None for c in row)]
        titles = book.sheetnames
    finally:
        book.close()
    if not rows:
        raise TableError("the first sheet must have a header and rows, got an empty one")
    notes = []
    if len(titles) > 1:
        notes.append(Note("sheet", f"the first of {len(titles)} sheets read; the others left out"))
    width = max(len(row) for row in rows)
    names = ["" if name is None else str(name).strip() for name in rows[0]]
    names += [""] * (width - len(names))
    cells = [
        [row[place] if place < len(row) else None for row in rows[1:]] for place in range(width)
    ]
    kept = [
        place for place in range(width) if names[place] or any(c is not None for c in cells[place])
    ]
    check_names([names[place] for place in kept])
    return _frame({names[place]: cells[place] for place in kept}, len(rows) - 1), notes


def _frame(columns: dict[str, list[Any]], n_rows: int) -> pd.DataFrame:
    return pd.DataFrame(
        {name: pd.Series(cells, dtype=object) for name, cells in columns.items()},
        index=pd.RangeIndex(n_rows),
    )
