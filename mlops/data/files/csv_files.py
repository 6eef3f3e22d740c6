"""CSV files, read as text: a cell is what is written, "" if nothing is; no cell is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from mlops.data.cells.plain import PlainNumbers
from mlops.data.files.csv_rows import (
    OPEN_LINES,
    find_fault,
    first_lines_of_rows,
    is_open_quote,
    open_quote_problem,
)
from mlops.data.files.dialects import find_dialect
from mlops.data.files.opening import CHUNK_BYTES, Utf8Text, opened
from mlops.errors import TableError

# Bytes that Arrow parses at a time; a row must fit, so that more are tried where one does not.
PARSE_BYTES = (CHUNK_BYTES, 2**25, 2**30)


class CsvFile:
    """A CSV file.

    Its rows are read anew at each call, so that little of it is in memory.

    Args:
        path: The file; it may be gzipped or in a zip archive.
        separator: What separates cells, if it is known.
        encoding: The file's encoding, if it is known.

    Attributes:
        schema: The columns, all of text.
        n_rows: None: it is known once all are read.
        notes: How the file is written, where that is not usual.

    Raises:
        TableError: The file is empty, or columns have no name or the same one.
    """

    n_rows: int | None = None

    def __init__(
        self, path: Path, separator: str | None = None, encoding: str | None = None
    ) -> None:
        self._path = path
        self._dialect = find_dialect(path, separator, encoding)
        self.schema = pa.schema([(name, pa.string()) for name in self._dialect.names])
        self.notes = self._dialect.notes

    def tables(self, names: Sequence[str]) -> Iterator[tuple[pa.Table, float]]:
        """Reads the rows from first to last.

        Args:
            names: The columns to read.

        Yields:
            Rows, and what share of the file has been read by then.

        Raises:
            TableError: A row has more or fewer cells than the header, or a quote is left open.
        """
        return self._tables(names, pa.string())

    @property
    def decimal(self) -> str:
        """The likelier decimal sign of its numbers."""
        return "," if self._dialect.separator == ";" else "."

    def frame(self, is_text: Callable[[str], bool] | None = None) -> pd.DataFrame:
        """Reads the whole table, its columns of the dtype `str`.

        Args:
            is_text: Tells of a column whether it must stay text; all do by default. Another one
                is of float64 if all its cells are plain numbers and gaps, which takes a third of
                the memory.

        Raises:
            TableError: As for `tables`.
        """
        names = self._dialect.names
        # Where commas are decimal signs `1.234` may be more than one.
        stays = is_text if is_text is not None and self.decimal == "." else lambda name: True
        numbers = {name: PlainNumbers() for name in names if not stays(name)}
        texts: dict[str, list[pa.Array]] = {name: [] for name in names if name not in numbers}
        again = set()
        rows = 0
        for table, share in self._tables(names, pa.large_string()):
            rows += len(table)
            expected = int(1.05 * rows / share)
            for name in names:
                if name in texts:
                    texts[name] += table[name].chunks
                elif name in numbers and not all(
                    numbers[name].add(cells, expected) for cells in table[name].chunks
                ):
                    if numbers[name].is_empty:
                        texts[name] = list(table[name].chunks)
                    else:
                        again.add(name)
                    del numbers[name]
        again |= {name for name, column in numbers.items() if column.are_codes}
        if again:
            # They began like numbers: their first cells are read once more.
            texts |= {name: [] for name in again}
            for table, _ in self._tables(sorted(again), pa.large_string()):
                for name in again:
                    texts[name] += table[name].chunks
        columns = {
            name: _text_column(texts.pop(name)) if name in texts else numbers[name].all()
            for name in names
        }
        return pd.DataFrame(columns, copy=False)

    def line_of(self, row: int) -> int | None:
        """Returns the line of the file, from 1, in which a row, from 0, begins."""
        return self._lines_of_rows[row]

    @cached_property
    def _lines_of_rows(self) -> Sequence[int]:
        return first_lines_of_rows(self._path, self._dialect)

    def _tables(self, names: Sequence[str], text: pa.DataType) -> Iterator[tuple[pa.Table, float]]:
        done = 0
        for size in PARSE_BYTES:
            try:
                rows = 0
                for table, share in self._parsed(size, text):
                    fresh = table.slice(max(0, done - rows))
                    rows += len(table)
                    if len(fresh):
                        done = rows
                        yield fresh.select(list(names)), share
                return
            except pa.ArrowInvalid as error:
                if "straddling" in str(error) and size != PARSE_BYTES[-1]:
                    continue
                problem = find_fault(self._path, self._dialect)
                raise TableError(problem or str(error).splitlines()[0]) from error

    def _parsed(self, size: int, text: pa.DataType) -> Iterator[tuple[pa.Table, float]]:
        places = [str(i) for i in range(self._dialect.width)]
        with opened(self._path) as (file, raw):
            on_disk = max(1, self._path.stat().st_size)
            stream = Utf8Text(file, self._dialect.encoding, self._dialect.separator)
            stream.skip(self._dialect.head)
            first = 0
            for batch in _open(stream, size, places, self._dialect.separator, text):
                if not len(batch):
                    continue
                self._check(batch, first, stream)
                first += len(batch)
                kept = batch.columns[: len(self._dialect.names)]
                share = min(1.0, raw.tell() / on_disk)
                yield pa.table(kept, self._dialect.names), share
            # Arrow takes the end of the file for the end of a quote.
            if stream.quotes % 2 and (problem := find_fault(self._path, self._dialect)):
                raise TableError(problem)

    def _check(self, batch: pa.RecordBatch, first: int, stream: Utf8Text) -> None:
        """Checks what Arrow does not: columns left out for being empty, and quotes left open."""
        for place in range(len(self._dialect.names), self._dialect.width):
            lengths = pc.utf8_length(pc.utf8_trim_whitespace(batch.column(place)))
            row = pc.index(pc.greater(lengths, 0), True).as_py()
            if row >= 0:
                raise TableError(
                    f"line {self.line_of(first + row):,} must have as many cells as the header "
                    f"has names, {len(self._dialect.names)}, got one for column {place + 1}; name "
                    "every column"
                )
        if not stream.quotes:
            return
        for column in batch.columns:
            if not _has_breaks(column):
                continue
            breaks = pc.count_substring(column, "\n")
            if (pc.max(breaks).as_py() or 0) + 1 < OPEN_LINES:
                continue
            for row in pc.indices_nonzero(pc.greater_equal(breaks, OPEN_LINES - 1)).to_pylist():
                if is_open_quote(column[row].as_py(), self._dialect):
                    line = self.line_of(first + row) or 0
                    raise TableError(open_quote_problem(line, breaks[row].as_py() + 1))


def _has_breaks(column: pa.Array) -> bool:
    """Tells whether there may be a line break in some cell: few columns have any."""
    data = column.buffers()[2]
    return data is not None and b"\n" in data.to_pybytes()


def _text_column(chunks: list[pa.Array]) -> pd.Series:
    text = pa.chunked_array(chunks, pa.large_string())
    return pd.Series(pd.array(text, dtype="str"), copy=False)


def _open(
    stream: Utf8Text, size: int, places: list[str], separator: str, text: pa.DataType
) -> Iterator[pa.RecordBatch]:
    try:
        # Threads would read ahead; and a parser of one thread costs a tenth less.
        batches = pa.csv.open_csv(
            pa.PythonFile(stream, mode="r"),
            read_options=pa.csv.ReadOptions(
                column_names=places, block_size=size, use_threads=False
            ),
            parse_options=pa.csv.ParseOptions(delimiter=separator, newlines_in_values=True),
            convert_options=pa.csv.ConvertOptions(
                column_types=dict.fromkeys(places, text),
                strings_can_be_null=False,
                check_utf8=False,  # it has been decoded, or looked at by `find_encoding`
            ),
        )
    except pa.ArrowInvalid as error:
        if "Empty CSV file" in str(error):
            return
        raise
    yield from batches
