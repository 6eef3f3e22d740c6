"""Files of delimited text, CSV and its like, read as text: no cell is guessed at here."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from mlops.data.dialect import encoding_of, find_dialect, opened, opened_text
from mlops.data.notes import Note
from mlops.data.plain import PlainNumbers
from mlops.errors import TableError

BLOCK_BYTES = 2**20  # measured: of 64 kB to 16 MB the fastest, since it stays in the cache
ROWS_AT_ONCE = 2**14
LAST_BYTES = 2**16
# A cell of so many lines that look like rows is what a quote left open makes.
OPEN_LINES = 5


class DelimitedFile:
    """A file of delimited text.

    Args:
        path: The file.
        separator: What separates the cells, if the user says so.
        encoding: Its encoding, if the user says so.

    Attributes:
        dialect: How it is written.
        names: The columns.

    Raises:
        TableError: It is empty, its columns are named badly, or it is in no known encoding.
    """

    def __init__(
        self, path: Path, *, separator: str | None = None, encoding: str | None = None
    ) -> None:
        self._path = path
        self._given = {"separator": separator, "encoding": encoding}
        self.dialect = find_dialect(path, separator=separator, encoding=encoding)

    @property
    def names(self) -> list[str]:
        """The columns, but for one that only separators at the ends of lines make."""
        names = self.dialect.names
        return list(names[:-1] if self._has_empty_end else names)

    @property
    def notes(self) -> tuple[Note, ...]:
        """What was guessed of how it is written."""
        return self.dialect.notes

    @property
    def decimal(self) -> str:
        """The likelier decimal sign of its numbers."""
        return "," if self.dialect.separator == ";" else "."

    def read(self, is_text: Callable[[str], bool] = lambda name: True) -> dict[str, Any]:
        """Reads the file whole.

        Args:
            is_text: Tells of a column whether it must stay text. Another one is numbers, at once,
                if all its cells are plain numbers and gaps, which takes a third of the memory.

        Returns:
            The columns by name: a `ChunkedArray` of texts, none null; or numbers, [N] float64.

        Raises:
            TableError: A row has too few cells or too many, a quote is left open, or bytes are no
                text.
        """
        try:
            return self._read(is_text)
        except UnicodeDecodeError:
            if self._given["encoding"] is not None:
                raise
        # The beginning was ASCII.
        with opened(self._path) as (file, _):
            encoding = encoding_of(file.read(), whole=True)
        self.dialect = find_dialect(
            self._path, separator=self._given["separator"], encoding=encoding
        )
        told = Note("encoding", f"text in {encoding}; say otherwise with --data.encoding")
        self.dialect = replace(self.dialect, notes=(*self.dialect.notes, told))
        return self._read(is_text)

    def _read(self, is_text: Callable[[str], bool]) -> dict[str, Any]:
        columns = {name: PlainNumbers() for name in self.names if not is_text(name)}
        texts: dict[str, list[pa.Array]] = {name: [] for name in self.names if name not in columns}
        again = set()
        for batch, _ in self.batches():
            for name in self.names:
                cells = batch[name]
                if name in texts:
                    texts[name].append(cells)
                elif name in columns and not columns[name].add(cells):
                    if columns[name].is_empty:
                        texts[name] = [cells]
                    else:
                        again.add(name)
                    del columns[name]
        again |= {name for name, column in columns.items() if column.are_codes}
        if again:
            # They began like numbers: their first cells are read once more.
            texts |= {name: [] for name in again}
            for batch, _ in self.batches(sorted(again)):
                for name in again:
                    texts[name].append(batch[name])
        return {
            name: pa.chunked_array(texts[name], pa.large_string())
            if name in texts
            else columns[name].all()
            for name in self.names
        }

    def batches(self, names: list[str] | None = None) -> Iterator[tuple[pa.RecordBatch, float]]:
        """Reads the file some rows at a time, and tells what share of it has been read.

        Args:
            names: The columns to read; all by default.

        Raises:
            TableError: As `read`.
            UnicodeDecodeError: Bytes are no text in the encoding.
        """
        wanted = self.names if names is None else names
        if self.dialect.blank_before_quotes or not wanted:
            yield from self._slow_batches(wanted)
            return
        size = max(1, self._path.stat().st_size)
        n_rows, last = 0, None
        with opened(self._path) as (file, raw):
            try:
                for batch in self._fast_batches(file, wanted):
                    self._check_cells(batch)
                    yield batch, min(1.0, raw.tell() / size)
                    n_rows += len(batch)
                    last = batch if len(batch) else last
                if last is not None and self._may_be_open(last):
                    for _ in self._rows():  # says so
                        pass
                return
            except pa.ArrowInvalid:
                pass
        # A row is wrong, and said to be, or of more bytes than Arrow takes at once.
        yield from self._slow_batches(wanted, first=n_rows)

    def _fast_batches(self, file: object, wanted: list[str]) -> Iterator[pa.RecordBatch]:
        dialect = self.dialect
        inner = [name if name else f"\0{place}" for place, name in enumerate(dialect.names)]
        kept = set(wanted)
        last = [inner[-1]] if self._has_empty_end else []
        reader = pyarrow.csv.open_csv(
            pa.PythonFile(file, mode="r"),
            read_options=pyarrow.csv.ReadOptions(
                column_names=inner,
                skip_rows=dialect.first_line,
                block_size=BLOCK_BYTES,
                encoding=dialect.encoding.replace("utf-8-sig", "utf8").replace("utf-8", "utf8"),
                use_threads=False,
            ),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=dialect.separator, newlines_in_values=True
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(inner, pa.large_string()),
                include_columns=[name for name in inner if name in kept] + last,
                strings_can_be_null=False,
                quoted_strings_can_be_null=False,
            ),
        )
        for batch in reader:
            if last:
                if pc.any(pc.not_equal(batch.column(batch.num_columns - 1), "")).as_py():
                    raise TableError(
                        "every column must have a name, got none for the last one, which has cells"
                    )
                batch = batch.select(list(range(batch.num_columns - 1)))
            yield batch.select(wanted)

    def _slow_batches(
        self, wanted: list[str], first: int = 0
    ) -> Iterator[tuple[pa.RecordBatch, float]]:
        names = self.names
        places = [names.index(name) for name in wanted]
        schema = pa.schema([(name, pa.large_string()) for name in wanted])
        rows: list[list[str]] = []

        def batch() -> pa.RecordBatch:
            columns = [
                pa.array([row[place] for row in rows], pa.large_string()) for place in places
            ]
            return pa.record_batch(columns, schema=schema)

        for row, _ in islice(self._rows(), first, None):
            rows.append(row)
            if len(rows) == ROWS_AT_ONCE:
                yield batch(), 0.5
                rows = []
        yield batch(), 1.0

    def _rows(self) -> Iterator[tuple[list[str], int]]:
        """Reads rows one by one, each with its line, and says which one is wrong."""
        dialect = self.dialect
        width = len(dialect.names)
        with opened_text(self._path, dialect) as file:
            for _ in range(dialect.first_line):
                file.readline()
            reader = csv.reader(
                file,
                delimiter=dialect.separator,
                skipinitialspace=dialect.blank_before_quotes,
                strict=True,
            )
            line = dialect.first_line + 1
            while True:
                try:
                    row = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    reason = str(error)
                    what = "got a quote that is left open" if "end of data" in reason else reason
                    raise TableError(
                        f"the row in line {line:,} must end before the file does, {what}; close "
                        "it, or write a quote within a cell twice"
                    ) from error
                next_line = dialect.first_line + reader.line_num + 1
                if row:
                    self._check_spanning(row, line, next_line - line)
                    if len(row) != width:
                        raise self._uneven(row, line)
                    yield row, line
                line = next_line

    def _uneven(self, row: list[str], line: int) -> TableError:
        names = len(self.names)
        what = "short" if len(row) < len(self.dialect.names) else "long"
        return TableError(
            f"line {line:,} must have as many cells as the header, {names}, got {len(row)}; the "
            f"row is too {what}: mend it, or take it out"
        )

    def _check_spanning(self, row: list[str], line: int, n_lines: int) -> None:
        if n_lines < OPEN_LINES:
            return
        for cell in row:
            if self._looks_like_rows(cell):
                raise TableError(
                    f"a cell that begins in line {line:,} spans {cell.count(chr(10)) + 1} lines "
                    "that look like rows, so a quote seems to be left open there; close it, or "
                    "write a quote within a cell twice"
                )

    def _looks_like_rows(self, cell: str) -> bool:
        inner = cell.split("\n")[1:-1]
        if len(inner) < OPEN_LINES - 2:
            return False
        wanted = len(self.dialect.names) - 1
        alike = sum(text.count(self.dialect.separator) == wanted for text in inner)
        return wanted > 0 and alike > len(inner) / 2

    def _check_cells(self, batch: pa.RecordBatch) -> None:
        """Looks for cells that hold rows; few tables have cells of several lines."""
        for column in batch.columns:
            if self._lines_of_longest(column) >= OPEN_LINES:
                spanning = column.filter(pc.greater_equal(pc.count_substring(column, "\n"), 1))
                if any(self._looks_like_rows(cell) for cell in spanning.to_pylist()):
                    for _ in self._rows():  # says in which line
                        pass

    def _may_be_open(self, last: pa.RecordBatch) -> bool:
        """Tells whether the file may end within a quoted cell, which Arrow takes for its end."""
        if any("\n" in column[-1].as_py() for column in last.columns):
            return True
        with opened(self._path) as (file, raw):
            if file is not raw:
                return False
            file.seek(max(0, self._path.stat().st_size - LAST_BYTES))
            line = file.read().rstrip(b"\r\n").rpartition(b"\n")[2]
        return line.count(b'"') % 2 == 1

    @staticmethod
    def _lines_of_longest(column: pa.Array) -> int:
        buffer = column.buffers()[2]
        if buffer is None or b"\n" not in memoryview(buffer).tobytes():
            return 0
        return int(pc.max(pc.count_substring(column, "\n")).as_py() or 0) + 1

    @property
    def _has_empty_end(self) -> bool:
        return any(note.code == "trailing_separator" for note in self.dialect.notes)

    def line_of(self, row: int) -> int | None:
        """Returns the line of a row of the file, both counted: rows from 0, lines from 1."""
        try:
            return int(self._lines[row])
        except (OSError, IndexError, TableError, ValueError):  # it may be gone by now
            return None

    @cached_property
    def _lines(self) -> np.ndarray:
        return np.fromiter((line for _, line in self._rows()), dtype=np.int64)
