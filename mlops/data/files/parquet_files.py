"""Parquet: a file, or a folder of files as Spark writes it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from mlops.data.columns.arrow import pandas_column
from mlops.data.columns.names import check_names
from mlops.data.files.opening import BLOCK_BYTES, MOST_ROWS
from mlops.data.notes import Note
from mlops.errors import TableError

READ_BUFFER = 2**16


class ParquetTable:
    """A Parquet file, or the files of a folder, one after the other by their names.

    Args:
        path: The file or the folder; of the latter, files and folders that begin with `_` or `.`
            are no part.

    Attributes:
        schema: The columns.
        n_rows: Number of rows.
        notes: None so far.

    Raises:
        TableError: A file is damaged, files differ in their columns, or names are bad.
    """

    notes: tuple[Note, ...] = ()

    decimal = "."

    def __init__(self, path: Path) -> None:
        self._parts = parts_of(path)
        schemas, in_file, n_rows = [], 0, 0
        for part in self._parts:
            with _open(part) as file:
                check_names(file.schema_arrow.names)
                schemas.append(file.schema_arrow.remove_metadata())
                metadata = file.metadata
            n_rows += metadata.num_rows
            groups = range(metadata.num_row_groups)
            in_file += sum(metadata.row_group(group).total_byte_size for group in groups)
        self.n_rows: int | None = n_rows
        self.schema = _common_schema(schemas, self._parts)
        # Text that repeats takes less room in the file than in memory.
        self._row_bytes = max(1.0, in_file / max(1, n_rows), 8.0 * len(self.schema))

    def tables(self, names: Sequence[str]) -> Iterator[tuple[pa.Table, float]]:
        """Yields rows of the columns named, and the share read by then."""
        schema, done = pa.schema([self.schema.field(name) for name in names]), 0
        rows = int(min(MOST_ROWS, max(1, BLOCK_BYTES / self._row_bytes)))
        for part in self._parts:
            with _open(part) as file:
                for batch in file.iter_batches(rows, columns=list(names), use_threads=False):
                    table = pa.Table.from_batches([batch]).select(list(names))
                    done += len(table)
                    yield _as(table, schema), done / max(1, self.n_rows or 0)

    def frame(self, is_text: Callable[[str], bool] | None = None) -> pd.DataFrame:
        """Reads the whole table.

        One column at a time, without reading ahead, copied out of Arrow's pool. Measured, 1,000,000
        x 100 in one row group: reading all at once or in batches of rows peaked at 1.4 to 3.7 times
        the table, changing from run to run, and the pool kept the memory after the frame was gone;
        this peaks at 1.1.
        """
        names = [name for name in self.schema.names if not re.fullmatch(_PANDAS_INDEX, name)]
        with ExitStack() as stack:
            files = [stack.enter_context(_open(part)) for part in self._parts]
            columns = {name: pandas_column(self._column(files, name)).copy() for name in names}
        pa.default_memory_pool().release_unused()
        return pd.DataFrame(columns, copy=False)

    def line_of(self, row: int) -> int | None:
        """Returns None: there are no lines."""
        return None

    def _column(self, files: list[pa.parquet.ParquetFile], name: str) -> pa.ChunkedArray:
        type_, pieces = self.schema.field(name).type, []
        for file in files:
            column = file.read([name], use_threads=False)[name]
            pieces += (column if column.type == type_ else column.cast(type_)).chunks
        return pa.chunked_array(pieces, type_)


_PANDAS_INDEX = r"__index_level_\d+__"


def parts_of(path: Path) -> list[Path]:
    """Returns the files of a Parquet table, in the order of their names.

    Raises:
        TableError: A folder has none, or folders that stand for a column's values.
    """
    if not path.is_dir():
        return [path]
    files = sorted(
        file
        for file in path.rglob("*.parquet")
        if file.is_file()
        and not any(name.startswith((".", "_")) for name in file.relative_to(path).parts)
    )
    if not files:
        raise TableError("a folder must hold files that end in .parquet, got none")
    for file in files:
        if named := [name for name in file.relative_to(path).parts[:-1] if "=" in name]:
            raise TableError(
                "a folder of Parquet files must have all columns in the files, got folders such as "
                f"`{named[0]}`; write the table without partitions"
            )
    return files


def _open(path: Path) -> pa.parquet.ParquetFile:
    # Reading ahead would hold a whole row group, and a file may have just one.
    return pa.parquet.ParquetFile(path, pre_buffer=False, buffer_size=READ_BUFFER)


def _common_schema(schemas: list[pa.Schema], parts: list[Path]) -> pa.Schema:
    """Returns the first file's schema; a column without any cell takes another file's type.

    Raises:
        TableError: Files differ in their columns.
    """
    first = schemas[0]
    types = dict(zip(first.names, first.types, strict=True))
    for schema, part in zip(schemas[1:], parts[1:], strict=True):
        for name, type_ in zip(schema.names, schema.types, strict=True):
            if name in types and pa.types.is_null(types[name]):
                types[name] = type_
            known = types.get(name)
            if known is None or (_bare(type_) != _bare(known) and not pa.types.is_null(type_)):
                wanted = f"as {known}" if known is not None else "not at all"
                raise TableError(
                    f"the files of a folder must have the same columns, got `{name}` {wanted} in "
                    f"`{parts[0].name}` and as {type_} in `{part.name}`; write them alike"
                )
        if absent := [name for name in types if name not in schema.names]:
            raise TableError(
                f"the files of a folder must have the same columns, got `{absent[0]}` in "
                f"`{parts[0].name}` and not in `{part.name}`; write them alike"
            )
    return pa.schema(list(types.items()))


def _bare(type_: pa.DataType) -> pa.DataType:
    """Returns what a type holds: how text is kept in a file does not matter."""
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    is_text = pa.types.is_large_string(type_) or pa.types.is_string_view(type_)
    return pa.string() if is_text else type_


def _as(table: pa.Table, schema: pa.Schema) -> pa.Table:
    if table.schema.equals(schema):
        return table
    columns = [
        column if column.type == field.type else column.cast(field.type)
        for column, field in zip(table.columns, schema, strict=True)
    ]
    return pa.Table.from_arrays(columns, schema=schema)
