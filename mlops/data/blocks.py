"""Tables larger than memory: read in blocks of rows, and written block by block.

A block is an Arrow table: of a Parquet file the file's own types, of delimited text nothing but
text, carried as it stands. What the cells are is for the model's columns to say, so no block and no
file reads a cell otherwise than another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from mlops.data.delimited import DelimitedFile
from mlops.data.features import Column
from mlops.data.names import check_names
from mlops.data.parquet import ParquetTable
from mlops.data.sources import (
    PARQUET_ENDINGS,
    TEXT_ENDINGS,
    check_path,
    ending_of,
    read_file,
    readable,
)
from mlops.data.spelling import spelled
from mlops.errors import TableError
from mlops.files import replacing

BLOCK_BYTES = 2**24  # of a block, about, unless its rows are counted
MOST_ROWS = 2**17
SAMPLE_BYTES = 2**18


@dataclass(frozen=True, eq=False)
class Block:
    """Some rows of a table.

    Attributes:
        first_row: Position of its first row in the table.
        rows: The rows, in the reader's schema; except that a column of a CSV file with a cell that
            cannot be read as its type is what pandas makes of it, for the encoder to refuse.
        share: How much of the file has been read, from 0 to 1.
    """

    first_row: int
    rows: pa.Table
    share: float


class TableReader(Protocol):
    """A table that is read block by block.

    Attributes:
        schema: The columns.
        n_rows: Number of rows, if it is known before all are read.
    """

    schema: pa.Schema
    n_rows: int | None

    def blocks(self) -> Iterator[Block]:
        """Reads the table from its first row to its last.

        Raises:
            TableError: The file is damaged.
        """


def open_table(
    path: str | Path,
    columns: Sequence[Column],
    *,
    only: bool = False,
    block_rows: int | None = None,
) -> TableReader:
    """Opens a table to be read for a model.

    Args:
        path: The file.
        columns: The model's columns; what the file lacks of them is not missed here.
        only: Read no other columns.
        block_rows: Rows of a block; by default as many as take about `BLOCK_BYTES`.

    Raises:
        TableError: The file is missing, unreadable, of another kind, or names columns badly.
    """
    check_path(path)
    path = Path(path)
    wanted = {column.name for column in columns} if only else None
    with readable(path):
        ending = ending_of(path)
        if ending in TEXT_ENDINGS:
            return _TextReader(path, wanted, block_rows)
        if ending in PARQUET_ENDINGS:
            return _ParquetReader(path, wanted, block_rows)
        return _WholeReader(path, wanted, block_rows)


class _ParquetReader:
    def __init__(self, path: Path, wanted: set[str] | None, block_rows: int | None) -> None:
        self._path = path
        self._table = ParquetTable(path)
        schema = self._table.schema
        check_names(schema.names)
        self.schema = _chosen(schema, wanted)
        self.n_rows: int | None = self._table.n_rows
        # Text that repeats takes less room in the file than in memory.
        self._block_rows = block_rows or _rows_of(max(self._table.bytes_a_row, 8.0 * len(schema)))

    def blocks(self) -> Iterator[Block]:
        first = 0
        with readable(self._path):
            for batch in self._table.batches(self._block_rows, self.schema.names):
                rows = pa.Table.from_batches([batch], self.schema)
                last = first + len(rows)
                yield Block(first, rows, last / max(1, self.n_rows or 0))
                first = last


class _TextReader:
    n_rows: int | None = None

    def __init__(self, path: Path, wanted: set[str] | None, block_rows: int | None) -> None:
        self._path = path
        self._file = DelimitedFile(path)
        names = [name for name in self._file.names if wanted is None or name in wanted]
        self.schema = pa.schema([(name, pa.large_string()) for name in names])
        self._block_rows = block_rows or _rows_of(_line_bytes(path))

    def blocks(self) -> Iterator[Block]:
        first = 0
        with readable(self._path):
            for batch, share in self._file.batches(self.schema.names):
                for start in range(0, len(batch), self._block_rows):
                    piece = batch.slice(start, self._block_rows)
                    rows = pa.Table.from_batches([piece], self.schema)
                    yield Block(first, rows, share)
                    first += len(rows)


class _WholeReader:
    """A table of a kind that is read at once: sheets and lines of JSON."""

    def __init__(self, path: Path, wanted: set[str] | None, block_rows: int | None) -> None:
        frame = read_file(path).frame
        names = [name for name in frame if wanted is None or name in wanted]
        self._rows = pa.table({name: _arrow(frame[name]) for name in names})
        self.schema = self._rows.schema
        self.n_rows: int | None = len(frame)
        self._block_rows = block_rows or MOST_ROWS

    def blocks(self) -> Iterator[Block]:
        n_rows = max(1, self.n_rows or 0)
        for first in range(0, len(self._rows), self._block_rows):
            rows = self._rows.slice(first, self._block_rows)
            yield Block(first, rows, (first + len(rows)) / n_rows)


def _chosen(schema: pa.Schema, wanted: set[str] | None) -> pa.Schema:
    return pa.schema([field for field in schema if wanted is None or field.name in wanted])


def _arrow(cells: pd.Series) -> pa.Array:
    """Types a column of objects, as text where its cells are of several types."""
    try:
        return pa.array(cells.tolist())
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.array([None if cell is None else spelled(cell) for cell in cells], pa.string())


def _line_bytes(path: Path) -> float:
    with path.open("rb") as file:
        sample = file.read(SAMPLE_BYTES)
    return len(sample) / max(1, sample.count(b"\n"))


def _rows_of(row_bytes: float) -> int:
    return int(min(MOST_ROWS, max(1, BLOCK_BYTES / max(1.0, row_bytes))))


@contextmanager
def writing(
    path: str | Path, schema: pa.Schema, *, overwrite: bool = True
) -> Iterator[Callable[[pa.Table], None]]:
    """Writes a `.csv` or `.parquet` file from the tables that the function yielded is called with.

    The file takes its name when the block ends well: a reader sees all of it or nothing, and
    what is interrupted leaves no file and an older one as it was. Missing folders are made. In
    Parquet each table is a row group.

    Args:
        path: The file, or its URI in an object store.
        schema: The schema of every table.
        overwrite: Whether it may take the place of a file that is there by then.

    Raises:
        TableError: The file cannot be written, or a CSV file cannot hold a column.
    """
    with replacing(path, overwrite=overwrite) as unfinished:
        writer = _open_writer(unfinished, schema)
        try:
            yield writer.write_table
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            with suppress(OSError):
                writer.close()
            raise _unwritable(error) from error
        except BaseException:
            with suppress(OSError):
                writer.close()
            raise
        writer.close()


def _open_writer(path: Path, schema: pa.Schema) -> pa.parquet.ParquetWriter | pa.csv.CSVWriter:
    if path.suffix.lower() == ".parquet":
        # Measurements hardly repeat, so that a dictionary of them is made for nothing.
        repeating = [field.name for field in schema if not pa.types.is_floating(field.type)]
        return pa.parquet.ParquetWriter(path, schema, use_dictionary=repeating)
    try:
        return pa.csv.CSVWriter(path, schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise _unwritable(error) from error


def _unwritable(error: Exception) -> TableError:
    return TableError(
        f"a CSV file must hold numbers, text, booleans or times, got {error}; write to a "
        "`.parquet` file, or keep no columns"
    )
