"""Where tables come from: CSV and Parquet files, scikit-learn, OpenML, or generated."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from mlops.data.arrow import pandas_column
from mlops.data.columns import some_of
from mlops.data.notes import Note
from mlops.data.synthetic import TARGET, SyntheticSpec, make_table
from mlops.errors import TableError
from mlops.files import exists, is_uri, local_copy

if TYPE_CHECKING:
    import pyarrow.parquet

SKLEARN_TABLES = ("breast_cancer", "digits", "iris", "wine")
READ_BUFFER = 2**16
CSV_FORMAT: dict[str, Any] = {"encoding": "utf-8-sig", "skipinitialspace": True}


@dataclass(frozen=True, eq=False)
class RawTable:
    """A table as read, before any check.

    Attributes:
        frame: All columns; their names are text.
        name: Short name, such as "phoneme".
        source: Where it came from: a path, "sklearn:digits", "openml:1590", "synthetic:...".
        target: The column its publisher calls the target, if any.
        decimal: The likelier decimal sign of its numbers.
        notes: What was noticed about the file.
    """

    frame: pd.DataFrame
    name: str
    source: str
    target: str | None = None
    decimal: str = "."
    notes: tuple[Note, ...] = ()

    def line_of(self, row: int) -> int | None:
        """Returns the line of the file that a row is in, from 1."""
        return row + 2


def read_file(path: str | Path) -> RawTable:
    """Reads a `.csv` file (UTF-8, commas, a header line) or a `.parquet` file.

    Args:
        path: Its path, or its URI in an object store.

    Raises:
        TableError: The file is missing, unreadable, empty, of another kind, or names columns badly.
    """
    with fetched(path) as local, readable(path):
        frame = _READERS[local.suffix.lower()](local)
    return RawTable(frame, local.stem, str(path), TARGET if TARGET in frame else None)


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
    if Path(path).suffix.lower() not in _READERS:
        raise TableError(
            f"a table must end in .csv or .parquet, got `{path}`; convert or rename it"
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
            f"`{path}` must be text in UTF-8, got {error.reason} at byte {error.start}; convert it"
        ) from error
    except (OSError, ValueError) as error:
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


def nearest(name: str, names: list[str]) -> str:
    """Suggests what was meant by a name that is not among `names`."""
    close = get_close_matches(name, names, n=1)
    return f"did you mean `{close[0]}`?" if close else f"choose one of {some_of(names, most=20)}"


def csv_names(path: Path) -> list[str]:
    """Reads the header line of a CSV file.

    Raises:
        TableError: The file is empty, or columns have no name or the same one.
    """
    try:
        header = pd.read_csv(
            path, header=None, nrows=1, dtype=str, keep_default_na=False, **CSV_FORMAT
        )
    except pd.errors.EmptyDataError as error:
        raise TableError("the file must have a header line and rows, got an empty file") from error
    names = header.iloc[0].to_list()
    _check_separator(names)
    check_names(names)
    return names


def csv_chunks(path: Path, n_rows: int, **options: Any) -> Iterator[tuple[pd.DataFrame, int]]:
    """Reads a CSV file some rows at a time.

    Args:
        path: The file.
        n_rows: Rows at a time.
        options: Of `pandas.read_csv`: `na_values` at least.

    Yields:
        Rows, and up to which byte the file has been read, about.
    """
    options |= {"chunksize": n_rows, "keep_default_na": False, "low_memory": False, **CSV_FORMAT}
    with path.open("rb") as file, pd.read_csv(file, **options) as chunks:
        for frame in chunks:
            yield frame, file.tell()


def _read_csv(path: Path) -> pd.DataFrame:
    csv_names(path)
    frame = pd.read_csv(
        path,
        keep_default_na=False,
        na_filter=False,
        dtype=str,
        **CSV_FORMAT,
    )
    check_width(frame)
    return frame


def check_width(frame: pd.DataFrame) -> None:
    """Checks that rows had as many cells as the header: pandas makes an index of what is over.

    Raises:
        TableError: They had more.
    """
    if not isinstance(frame.index, pd.RangeIndex):
        raise TableError(
            f"rows must have as many cells as the header, {frame.shape[1]}, got more; name every "
            "column"
        )


def _read_parquet(path: Path) -> pd.DataFrame:
    import pyarrow
    import pyarrow.parquet

    # One column at a time, without reading ahead, copied out of Arrow's pool. Measured, 1,000,000 x
    # 100 in one row group: reading all at once or in batches of rows peaked at 1.4 to 3.7 times the
    # table, changing from run to run, and the pool kept the memory after the frame was gone; this
    # peaks at 1.1.
    with pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=READ_BUFFER) as file:
        check_names(file.schema_arrow.names)
        frame = pd.DataFrame(
            {
                name: _parquet_column(file, name)
                for name in file.schema_arrow.names
                if not re.fullmatch(r"__index_level_\d+__", name)
            },
            copy=False,
        )
    pyarrow.default_memory_pool().release_unused()
    return frame


def _parquet_column(file: pyarrow.parquet.ParquetFile, name: str) -> pd.Series:
    column = file.read([name], use_threads=False).select([name])
    return pandas_column(column[name]).copy()


def _check_separator(names: list[str]) -> None:
    for separator, title in {";": "semicolons", "\t": "tabs"}.items():
        if len(names) == 1 and separator in names[0]:
            raise TableError(
                f"cells must be separated by commas, got {title} in the header; write the file "
                f"with commas (pandas: `read_csv(path, sep={separator!r}).to_csv(...)`)"
            )


def check_names(names: list[str]) -> None:
    problems = []
    unnamed = [str(i + 1) for i, name in enumerate(names) if not name.strip()]
    if unnamed:
        problems.append(
            f"every column must have a name, got none for column {', '.join(unnamed[:5])}; name "
            "it, or if it is a row number write the file without (pandas: `index=False`)"
        )
    twice = [name for name, times in Counter(names).items() if times > 1 and name.strip()]
    if twice:
        problems.append(
            f"column names must differ, got twice: {some_of(twice)}; rename or drop one"
        )
    if problems:
        raise TableError(problems)


def _nearest_file(path: str | Path) -> str:
    if is_uri(path):
        return "; check its address"
    path = Path(path)
    if not path.parent.is_dir():
        return f"; there is no folder `{path.parent}`"
    tables = sorted(file.name for file in path.parent.iterdir() if file.suffix.lower() in _READERS)
    if not tables:
        return f"; there is no table in `{path.parent}`"
    return f"; {nearest(path.name, tables)}"


_READERS: dict[str, Callable[[Path], pd.DataFrame]] = {".csv": _read_csv, ".parquet": _read_parquet}
