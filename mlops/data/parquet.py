"""Parquet: a file, or a folder of files that are one table."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from mlops.data.arrow import pandas_column
from mlops.data.columns import some_of
from mlops.errors import TableError

READ_BUFFER = 2**16
_INDEX = re.compile(r"__index_level_\d+__")


class ParquetTable:
    """A Parquet file, or a folder of some.

    Args:
        path: The file or the folder; in one, what begins with a dot or `_` is no part of it.

    Attributes:
        schema: The columns.
        n_rows: Number of rows.
        bytes_a_row: Of the file, unpacked.

    Raises:
        TableError: There is no file, or files have other columns than the first one.
    """

    def __init__(self, path: Path) -> None:
        self._files = parts_of(path) if path.is_dir() else [path]
        metadata = []
        for file in self._files:
            with self._open(file) as opened:
                metadata.append((opened.metadata, opened.schema_arrow))
        self.schema = pa.schema(
            [field for field in metadata[0][1] if not _INDEX.fullmatch(field.name)]
        )
        for file, (_, schema) in zip(self._files, metadata, strict=True):
            there = set(schema.names)  # asking Arrow for them anew each time takes long
            absent = [name for name in self.schema.names if name not in there]
            if absent:
                raise TableError(
                    f"all files of a table must have the same columns, `{file.name}` lacks "
                    f"{some_of(absent)} of `{self._files[0].name}`; mend or remove it"
                )
        self.n_rows = sum(data.num_rows for data, _ in metadata)
        n_bytes = sum(
            data.row_group(group).total_byte_size
            for data, _ in metadata
            for group in range(data.num_row_groups)
        )
        self.bytes_a_row = n_bytes / max(1, self.n_rows)

    def read(self) -> pd.DataFrame:
        """Reads all of it, as typed columns."""
        # One column at a time, without reading ahead, copied out of Arrow's pool. Measured,
        # 1,000,000 x 100 in one row group: reading all at once or in batches of rows peaked at 1.4
        # to 3.7 times the table, changing from run to run, and the pool kept the memory after the
        # frame was gone; this peaks at 1.1.
        opened = [self._open(file) for file in self._files]
        try:
            columns = {name: self._column(opened, name) for name in self.schema.names}
        finally:
            for file in opened:
                file.close()
        pa.default_memory_pool().release_unused()
        return pd.DataFrame(columns, index=pd.RangeIndex(self.n_rows), copy=False)

    def batches(self, n_rows: int, names: list[str]) -> Iterator[pa.RecordBatch]:
        """Reads some rows at a time."""
        for path in self._files:
            with self._open(path) as file:
                for batch in file.iter_batches(n_rows, columns=names, use_threads=False):
                    yield batch.select(names)

    def _column(self, opened: list[pa.parquet.ParquetFile], name: str) -> pd.Series:
        tables = [file.read([name], use_threads=False).select([name]) for file in opened]
        if len({table.schema.field(name).type for table in tables}) > 1:
            whole = pa.concat_tables(tables, promote_options="permissive")
        else:
            whole = pa.concat_tables(tables)
        return pandas_column(whole[name]).copy()

    @staticmethod
    def _open(path: Path) -> pa.parquet.ParquetFile:
        return pa.parquet.ParquetFile(path, pre_buffer=False, buffer_size=READ_BUFFER)


def parts_of(folder: Path) -> list[Path]:
    """Returns the files of a table in a folder, in order.

    Raises:
        TableError: There are none.
    """
    files = sorted(
        path
        for path in folder.rglob("*.parquet")
        if path.is_file()
        and not any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)
    )
    if not files:
        raise TableError("a folder must hold .parquet files to be a table, got none; name a file")
    return files
