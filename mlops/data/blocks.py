"""Tables larger than memory: read in blocks of rows, and written block by block.

A block is an Arrow table. What a model makes of the blocks is what it makes of the whole table as
`sources.read_file` reads it: no column's type depends on the block.

    Parquet   the file's own types
    CSV       a numeric column of the model is float64, a categorical one is what its cells are in
              the whole file; a column that the model does not know is text, carried as it stands
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from mlops.data.encoders import Column
from mlops.data.sources import (
    READ_BUFFER,
    check_names,
    check_path,
    check_width,
    csv_chunks,
    csv_names,
    readable,
)
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
    """Opens a `.csv` or `.parquet` file to be read for a model.

    A CSV file is read once for the types of the model's categorical columns, where it has any.

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
    with readable(path):
        if path.suffix.lower() == ".parquet":
            return _ParquetReader(path, columns, only, block_rows)
        return _CsvReader(path, columns, only, block_rows)


class _ParquetReader:
    def __init__(
        self, path: Path, columns: Sequence[Column], only: bool, block_rows: int | None
    ) -> None:
        self._path = path
        with self._open() as file:
            metadata, schema = file.metadata, file.schema_arrow
            groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        check_names(schema.names)
        if only:
            known = {column.name for column in columns}
            schema = pa.schema([field for field in schema if field.name in known])
        self.schema = schema
        self.n_rows: int | None = metadata.num_rows
        # Text that repeats takes less room in the file than in memory.
        in_file = sum(group.total_byte_size for group in groups) / max(1, metadata.num_rows)
        self._block_rows = block_rows or _rows_of(max(in_file, 8.0 * len(schema)))

    def blocks(self) -> Iterator[Block]:
        first, names = 0, self.schema.names
        with readable(self._path), self._open() as file:
            for batch in file.iter_batches(self._block_rows, columns=names, use_threads=False):
                rows = pa.Table.from_batches([batch]).select(names)
                last = first + len(rows)
                yield Block(first, rows, last / max(1, self.n_rows or 0))
                first = last

    def _open(self) -> pa.parquet.ParquetFile:
        # Reading ahead would hold a whole row group, and a file may have just one.
        return pa.parquet.ParquetFile(self._path, pre_buffer=False, buffer_size=READ_BUFFER)


class _CsvReader:
    n_rows: int | None = None

    def __init__(
        self, path: Path, columns: Sequence[Column], only: bool, block_rows: int | None
    ) -> None:
        self._path = path
        self._block_rows = block_rows or _rows_of(_line_bytes(path))
        known = {column.name for column in columns}
        names = [name for name in csv_names(path) if name in known or not only]
        self.schema = pa.schema([(name, pa.string()) for name in names])

    def blocks(self) -> Iterator[Block]:
        first, size = 0, max(1, self._path.stat().st_size)
        with readable(self._path):
            chunks = csv_chunks(self._path, self._block_rows, na_filter=False, dtype=str)
            for frame, position in chunks:
                check_width(frame)
                columns = [pa.array(frame[name], pa.string()) for name in self.schema.names]
                rows = pa.table(columns, self.schema.names)
                yield Block(first, rows, min(1.0, position / size))
                first += len(rows)


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
