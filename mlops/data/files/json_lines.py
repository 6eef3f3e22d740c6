"""Files of JSON lines: an object a line, a key a column."""

from __future__ import annotations

import io
import json
from array import array
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from mlops.data.columns.names import check_names
from mlops.data.files.opening import opened
from mlops.data.files.typed_rows import TypedRow, TypedRowsFile, schema_of
from mlops.data.notes import Note
from mlops.errors import TableError


class JsonLinesFile(TypedRowsFile):
    """A file of JSON lines; the types of its columns are those of all of its rows.

    Args:
        path: The file; it may be gzipped or in a zip archive.

    Attributes:
        schema: The columns.
        n_rows: Number of rows.
        notes: None so far.

    Raises:
        TableError: A line is not a JSON object, or there is none.
    """

    notes: tuple[Note, ...] = ()

    def __init__(self, path: Path) -> None:
        self._path = path
        self.schema, n_rows = schema_of(self._rows())
        self.n_rows = n_rows
        if not self.schema.names:
            raise TableError("the file must have rows, got none")
        check_names(self.schema.names)

    def line_of(self, row: int) -> int | None:
        """Returns the line of the file, from 1, that a row, from 0, is."""
        return self._lines_of_rows[row]

    @cached_property
    def _lines_of_rows(self) -> Sequence[int]:
        return array("q", (place for place, _ in self._lines()))

    def _lines(self) -> Iterator[tuple[int, str]]:
        with (
            opened(self._path) as (file, _),
            io.TextIOWrapper(file, "utf-8-sig", newline="\n") as lines,
        ):
            for place, line in enumerate(lines, start=1):
                if line.strip():
                    yield place, line

    def _rows(self) -> Iterator[TypedRow]:
        for place, line in self._lines():
            try:
                row: Any = json.loads(line, parse_constant=_refused)
            except (ValueError, RecursionError) as error:
                raise TableError(
                    f"line {place:,} must be a JSON object, got: {str(error).splitlines()[0]}; "
                    "write one object a line"
                ) from error
            if not isinstance(row, dict):
                raise TableError(
                    f"line {place:,} must be a JSON object, got {_title(row)}; write one object a "
                    "line, a key for each column"
                )
            yield row


def _refused(word: str) -> None:
    if word == "NaN":
        return None  # what pandas writes for a gap by other ways than `to_json`
    raise ValueError(f"{word}, which is no JSON")


def _title(value: Any) -> str:
    names = {list: "a list", str: "a text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
