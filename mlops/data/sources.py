"""Where tables come from: files, scikit-learn, OpenML, or generated."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlops.data.arrow import pandas_column
from mlops.data.delimited import DelimitedFile
from mlops.data.names import check_names, nearest
from mlops.data.notes import Note
from mlops.data.parquet import ParquetTable
from mlops.data.sheets import read_json_lines, read_sheet
from mlops.data.synthetic import TARGET, SyntheticSpec, make_table
from mlops.errors import TableError
from mlops.files import exists, is_uri, local_copy

SKLEARN_TABLES = ("breast_cancer", "digits", "iris", "wine")
# What a table's name may end in. Text may be compressed.
TEXT_ENDINGS = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".csv.zip", ".zip")
PARQUET_ENDINGS = (".parquet",)
JSON_ENDINGS = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
SHEET_ENDINGS = (".xlsx",)
ENDINGS = (*TEXT_ENDINGS, *PARQUET_ENDINGS, *JSON_ENDINGS, *SHEET_ENDINGS)


@dataclass(eq=False)
class RawTable:
    """A table as read, before any check.

    Attributes:
        frame: All columns; their names are text. Of delimited text
            every cell is text, but for columns of plain numbers that need not stay so.
        name: Short name, such as "phoneme".
        source: Where it came from: a path, "sklearn:digits", "openml:1590", "synthetic:...".
        target: The column its publisher calls the target, if any.
        decimal: The likelier decimal sign of its numbers.
        notes: What was noticed about the file.
        line_of: Returns the line of the file that a row is in, from 1; None where it has no lines.
    """

    frame: pd.DataFrame
    name: str
    source: str
    target: str | None = None
    decimal: str = "."
    notes: tuple[Note, ...] = ()
    line_of: Callable[[int], int | None] = field(default=lambda row: None)

    def give_columns(self) -> dict[str, Any]:
        """Returns the columns, pandas arrays by name, and keeps none of them."""
        columns = {str(name): column.array for name, column in self.frame.items()}
        self.frame = self.frame.iloc[:, :0]
        return columns


def read_file(
    path: str | Path,
    *,
    separator: str | None = None,
    encoding: str | None = None,
    is_text: Callable[[str], bool] = lambda name: True,
) -> RawTable:
    """Reads a file: delimited text, Parquet or a folder of it, lines of JSON, a sheet of Excel's.

    Args:
        path: Its path, or its URI in an object store.
        separator: What separates cells of text; found by default.
        encoding: The encoding of text; found by default.
        is_text: Tells of a column of a file of text whether it must stay text, although all its
            cells are plain numbers and gaps.

    Raises:
        TableError: The file is missing, unreadable, empty, of another kind, or names columns badly.
    """
    with fetched(path) as local, readable(path):
        ending = ending_of(local)
        name = local.name[: -len(ending)]
        if ending in TEXT_ENDINGS:
            text = DelimitedFile(local, separator=separator, encoding=encoding)
            frame = _frame_of(text.read(is_text))
            target = TARGET if TARGET in frame else None
            return RawTable(frame, name, str(path), target, text.decimal, text.notes, text.line_of)
        notes: list[Note] = []
        if ending in PARQUET_ENDINGS:
            table = ParquetTable(local)
            check_names(table.schema.names)
            frame = table.read()
        elif ending in JSON_ENDINGS:
            frame = read_json_lines(local)
        else:
            frame, notes = read_sheet(local)
        check_names(list(frame))
    target = TARGET if TARGET in frame else None
    return RawTable(frame, name, str(path), target, notes=tuple(notes))


def _frame_of(columns: dict[str, Any]) -> pd.DataFrame:
    arrays = {
        name: column if isinstance(column, np.ndarray) else pandas_column(column).array
        for name, column in columns.items()
    }
    n_rows = len(next(iter(arrays.values()), ()))
    return pd.DataFrame(arrays, index=pd.RangeIndex(n_rows), copy=False)


def ending_of(path: str | Path) -> str:
    """Returns the ending by which a table's kind is known, "" for none of them."""
    name = Path(path).name.lower()
    return max((end for end in ENDINGS if name.endswith(end)), key=len, default="")


@contextmanager
def fetched(path: str | Path) -> Iterator[Path]:
    """Yields a table's file: of an object store, a copy of it for the time being.

    Raises:
        TableError: The file is missing, of another kind, or cannot be fetched.
    """
    check_path(path)
    with ExitStack() as stack:
        with readable(path):
            local = stack.enter_context(local_copy(path))
        yield local


def check_path(path: str | Path) -> None:
    """Checks that a path or a URI may name a table.

    Raises:
        TableError: The file is missing or of another kind.
    """
    if not ending_of(path):
        raise TableError(
            f"a table must end in one of {', '.join(ENDINGS)}, got `{path}`; convert or rename it"
        )
    with readable(path):
        is_there = exists(path)
    if not is_there:
        raise TableError(f"a table must be an existing file, got `{path}`{_nearest_file(path)}")


@contextmanager
def readable(path: str | Path) -> Iterator[None]:
    """Says in a line what goes wrong while a file is read.

    Raises:
        TableError: Something went wrong.
    """
    try:
        yield
    except TableError as error:
        raise TableError([f"`{path}`: {problem}" for problem in error.problems]) from error
    except UnicodeDecodeError as error:
        raise TableError(
            f"`{path}` must be text in {error.encoding}, got {error.reason} at byte {error.start}; "
            "name another encoding with --data.encoding, or convert it"
        ) from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise TableError(f"`{path}` must be readable, got: {reason}; check the file") from error


def read_sklearn(name: str) -> RawTable:
    """Loads one of the tables that come with scikit-learn (`SKLEARN_TABLES`).

    Raises:
        TableError: There is no such table.
    """
    if name not in SKLEARN_TABLES:
        raise TableError(
            f"scikit-learn's table must be one of {', '.join(SKLEARN_TABLES)}, got `{name}`"
        )
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name}")(as_frame=True)
    frame = bunch.frame.rename(columns={bunch.target.name: TARGET})
    if name != "digits":
        frame[TARGET] = bunch.target_names[frame[TARGET]]
    return RawTable(frame, name, f"sklearn:{name}", TARGET)


def read_openml(number: int) -> RawTable:
    """Fetches a table from OpenML; scikit-learn keeps it in its cache folder.

    Raises:
        TableError: The table does not exist, cannot be fetched, or is damaged.
    """
    from sklearn.datasets import fetch_openml

    try:
        bunch = fetch_openml(data_id=number, as_frame=True, parser="pandas")
    except (OSError, ValueError) as error:
        raise TableError(
            f"OpenML table {number} must be available, got: {error}; check the number and the "
            "network, or give a file"
        ) from error
    frame = bunch.frame.rename(columns=str)
    targets = bunch.target_names or []
    name = str(bunch.details.get("name", f"openml-{number}"))
    return RawTable(frame, name, f"openml:{number}", targets[0] if len(targets) == 1 else None)


def read_synthetic(spec: SyntheticSpec) -> RawTable:
    """Generates a table.

    Raises:
        InputError: The specification cannot be met.
    """
    return RawTable(make_table(spec), "synthetic", spec.describe(), TARGET)


def _nearest_file(path: str | Path) -> str:
    if is_uri(path):
        return "; check its address"
    path = Path(path)
    if not path.parent.is_dir():
        return f"; there is no folder `{path.parent}`"
    tables = sorted(file.name for file in path.parent.iterdir() if ending_of(file))
    if not tables:
        return f"; there is no table in `{path.parent}`"
    return f"; {nearest(path.name, tables)}"
