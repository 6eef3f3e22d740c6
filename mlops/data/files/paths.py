"""Paths of tables: whether they may be one, fetched, and in a line what goes wrong."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from mlops.data.columns.names import nearest
from mlops.data.files.table_files import ENDINGS, is_table
from mlops.errors import TableError
from mlops.files import exists, is_uri, local_copy


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
    if not is_table(path):
        raise TableError(
            f"a table must end in {some_endings()}, got `{path}`; convert or rename it"
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
            f"`{path}` must be text in {error.encoding}, got other bytes: {error.reason}; say its "
            "encoding by `data.encoding`"
        ) from error
    except (OSError, ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise TableError(f"`{path}` must be readable, got: {reason}; check the file") from error


def some_endings() -> str:
    """Returns the endings of tables, for an error."""
    return f"{', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}"


def _nearest_file(path: str | Path) -> str:
    if is_uri(path):
        return "; check its address"
    path = Path(path)
    if not path.parent.is_dir():
        return f"; there is no folder `{path.parent}`"
    tables = sorted(file.name for file in path.parent.iterdir() if file.suffix and is_table(file))
    if not tables:
        return f"; there is no table in `{path.parent}`"
    return f"; {nearest(path.name, tables)}"
