"""Tables larger than memory: read in blocks of rows, and written block by block.

A block is an Arrow table, of the file's own types; a CSV file's are text, cell by cell as they are
written. No column's type depends on the block.
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

from mlops.data.columns.features import Column
from mlops.data.files.opening import BLOCK_BYTES, MOST_ROWS
from mlops.data.files.paths import check_path, readable
from mlops.data.files.table_files import TableFile, open_file
from mlops.data.notes import Note
from mlops.errors import TableError
from mlops.files import replacing


@dataclass(frozen=True, eq=False)
class Block:
    """Some rows of a table.

    Attributes:
        first_row: Position of its first row in the table.
        rows: The rows, in the reader's schema.
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
        notes: How its file is written, where that is not usual.
    """

    schema: pa.Schema
    n_rows: int | None
    notes: tuple[Note, ...]

    def blocks(self) -> Iterator[Block]:
        """Reads the table from its first row to its last.

        Raises:
            TableError: The file is damaged.
        """

    def line_of(self, row: int) -> int | None:
        """Returns the line, from 1, in which a row, from 0, begins; None if there are no lines."""


def open_table(
    path: str | Path,
    columns: Sequence[Column],
    *,
    only: bool = False,
    block_rows: int | None = None,
    separator: str | None = None,
    encoding: str | None = None,
) -> TableReader:
    """Opens the file of a table to be read for a model.

    Args:
        path: The file, on this machine.
        columns: The model's columns; what the file lacks of them is not missed here.
        only: Read no other columns.
        block_rows: Rows of a block; by default as many as take about `BLOCK_BYTES`.
        separator: What separates the cells of a CSV file; found by default.
        encoding: The encoding of a CSV file; found by default.

    Raises:
        TableError: The file is missing, unreadable, of another kind, or names columns badly.
    """
    check_path(path)
    with readable(path):
        file = open_file(Path(path), separator, encoding)
    known = {column.name for column in columns}
    names = [name for name in file.schema.names if name in known or not only]
    return _Blocks(path, file, names, block_rows)


class _Blocks:
    def __init__(
        self, path: str | Path, file: TableFile, names: list[str], block_rows: int | None
    ) -> None:
        self._path, self._file, self._block_rows = path, file, block_rows
        self.schema = pa.schema([file.schema.field(name) for name in names])
        self.n_rows, self.notes, self.line_of = file.n_rows, file.notes, file.line_of

    def blocks(self) -> Iterator[Block]:
        first, pending = 0, self.schema.empty_table()
        with readable(self._path):
            for table, share in self._file.tables(self.schema.names):
                pending = pa.concat_tables([pending, table]) if len(pending) else table
                n_rows = self._block_rows or (len(pending) if _is_full(pending) else MOST_ROWS)
                ready = len(pending) // n_rows * n_rows
                for start in range(0, ready, n_rows):
                    rows = pending.slice(start, n_rows).combine_chunks()
                    yield Block(first + start, rows, share)
                first, pending = first + ready, pending.slice(ready)
        if len(pending):
            yield Block(first, pending.combine_chunks(), 1.0)


def _is_full(table: pa.Table) -> bool:
    return bool(table.nbytes >= BLOCK_BYTES / 2)


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
