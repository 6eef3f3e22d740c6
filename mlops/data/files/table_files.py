"""Files of tables, by their ending."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mlops.data.files.opening import ending_of, inner_ending
from mlops.data.notes import Note
from mlops.errors import TableError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


# CSV and JSON lines also gzipped (`.csv.gz`) or alone in an archive; Parquet also as a folder.
ENDINGS = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson", ".xlsx", ".csv.gz", ".zip")
_CSV = (".csv", ".tsv")
_JSON_LINES = (".jsonl", ".ndjson")


class TableFile(Protocol):
    """A file that holds a table, open or not: it is read anew at each call.

    Attributes:
        schema: The columns.
        n_rows: Number of rows, if it is known before all are read.
        notes: How it is written, where that is not usual.
        decimal: The likelier decimal sign of numbers that are text.
    """

    schema: pa.Schema
    n_rows: int | None
    notes: tuple[Note, ...]

    @property
    def decimal(self) -> str: ...

    def tables(self, names: Sequence[str]) -> Iterator[tuple[pa.Table, float]]:
        """Reads some columns from the first row to the last.

        Yields:
            Rows, and what share of the file has been read by then, from 0 to 1.

        Raises:
            TableError: The file is damaged.
        """

    def frame(self, is_text: Callable[[str], bool] | None = None) -> pd.DataFrame:
        """Reads the whole table, its columns as they are: text where the file has no types.

        Args:
            is_text: Tells of a column whether it must stay text, in a file without types, although
                all its cells are plain numbers and gaps; all do by default.

        Raises:
            TableError: The file is damaged.
        """

    def line_of(self, row: int) -> int | None:
        """Returns the line, from 1, in which a row, from 0, begins; None if there are no lines."""


def is_table(path: str | Path) -> bool:
    """Tells whether a path may be a table's by its ending; a folder without any may be Parquet."""
    path, ending = Path(path), ending_of(path)
    if path.suffix.lower() == ".gz":
        return ending in _CSV + _JSON_LINES
    return ending in ENDINGS or (not path.suffix and path.is_dir())


def open_file(path: Path, separator: str | None = None, encoding: str | None = None) -> TableFile:
    """Opens the file of a table, or a folder of Parquet files.

    Args:
        path: The file, whose ending has been checked.
        separator: What separates the cells of a CSV file, if it is known.
        encoding: The encoding of a CSV file, if it is known.

    Raises:
        OSError: The file cannot be read.
        TableError: It is no table.
    """
    ending = inner_ending(path)
    if ending in _CSV:
        from mlops.data.files.csv_files import CsvFile

        return CsvFile(path, separator, encoding)
    if ending in _JSON_LINES:
        from mlops.data.files.json_lines import JsonLinesFile

        return JsonLinesFile(path)
    if ending == ".xlsx":
        from mlops.data.files.workbooks import Workbook

        return Workbook(path)
    if ending == ".parquet" or path.is_dir():
        from mlops.data.files.parquet_files import ParquetTable

        return ParquetTable(path)
    raise TableError(f"an archive must hold a .csv file, got one that ends in `{ending}`")
