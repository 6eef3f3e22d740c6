"""Where tables come from: files of several kinds, scikit-learn, OpenML, or generated."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mlops.data.columns.names import stripped
from mlops.data.files.paths import fetched, readable
from mlops.data.files.table_files import open_file
from mlops.data.notes import Note
from mlops.data.synthetic import TARGET, SyntheticSpec, make_table
from mlops.errors import TableError

SKLEARN_TABLES = ("breast_cancer", "digits", "iris", "wine")


def _no_line(row: int) -> int | None:
    return None


@dataclass(eq=False)
class RawTable:
    """A table as read, before any check.

    Attributes:
        frame: All columns; their names are text. Of CSV every cell is text, but for columns of
            plain numbers that need not stay so.
        name: Short name, such as "phoneme".
        source: Where it came from: a path, "sklearn:digits", "openml:1590", "synthetic:...".
        target: The column its publisher calls the target, if any.
        notes: How its file is written, where that is not usual.
        decimal: The likelier decimal sign of its numbers.
        line_of: Tells the line of the file, from 1, in which a row, from 0, begins; None where
            there are no lines, or the file is gone.
    """

    frame: pd.DataFrame
    name: str
    source: str
    target: str | None = None
    notes: tuple[Note, ...] = ()
    decimal: str = "."
    line_of: Callable[[int], int | None] = _no_line

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
    is_text: Callable[[str], bool] | None = None,
) -> RawTable:
    """Reads a table of a file: CSV all as text, what has types with them.

    Args:
        path: Its path, or its URI in an object store; see `table_files.ENDINGS`.
        separator: What separates the cells of a CSV file; found by default.
        encoding: The encoding of a CSV file; found by default.
        is_text: Tells of a column of a CSV file whether it must stay text, although all its cells
            are plain numbers and gaps.

    Raises:
        TableError: The file is missing, unreadable, empty, of another kind, or names columns badly.
    """
    with fetched(path) as local, readable(path):
        file = open_file(local, separator, encoding)
        frame = file.frame(is_text)
    names, blanks = stripped(list(frame))
    frame.columns = pd.Index(names)
    name = local.with_suffix("").stem if local.suffix.lower() == ".gz" else local.stem
    target = TARGET if TARGET in frame else None

    def line_of(row: int) -> int | None:
        with suppress(OSError):  # a copy of an object store's file is gone
            return file.line_of(row)
        return None

    return RawTable(frame, name, str(path), target, (*file.notes, *blanks), file.decimal, line_of)


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
