"""The database of a tracking store: whether it can be used, or is made where there is none."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from mlops.errors import TrackingError, first_line
from mlops.tracking.store.inside.schema import has_tables, make_tables
from mlops.tracking.store.uris import ELSEWHERE, without_password


def check_is_there(path: Path) -> None:
    """Checks that a store that lies in a file or a folder is there.

    Raises:
        TrackingError: It is not.
    """
    if not path.exists():
        raise TrackingError(
            f"the tracking store must be there, got none at {path}; `python -m ray_jobs.tune` "
            f"makes one, or {ELSEWHERE}"
        )


def check_sqlite(path: Path, timeout: float) -> None:
    """Checks that a tracking database can be used, or made where there is none; needs no MLflow.

    Args:
        path: The database file.
        timeout: Seconds to wait for another program that is writing to it.

    Raises:
        TrackingError: The file cannot be made, read or written.
    """
    folder = path.parent
    if not folder.is_dir():
        raise TrackingError(
            f"the tracking database must lie in a folder that exists, got {path}; make it with "
            f"`mkdir -p '{folder}'`, or {ELSEWHERE}"
        )
    with _explained(path):
        if not os.access(folder, os.W_OK):
            raise PermissionError("SQLite keeps its journal beside it and the folder is read-only")
        if path.exists():
            with closing(_open(path, timeout)) as connection:
                connection.execute("PRAGMA schema_version")
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")


def check_tables(uri: str, path: Path | None) -> None:
    """Checks that a database has MLflow's tables, of this version: MLflow itself would make them.

    Args:
        uri: The database.
        path: Its file, if it is one.

    Raises:
        TrackingError: It has not, or cannot be read.
    """
    import sqlalchemy
    from sqlalchemy.exc import SQLAlchemyError

    if path is None:
        engine = sqlalchemy.create_engine(uri)
    else:  # for reading alone
        engine = sqlalchemy.create_engine(
            "sqlite://",
            creator=lambda: sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True),
            poolclass=sqlalchemy.pool.NullPool,
        )
    try:
        found = has_tables(engine)
    except SQLAlchemyError as error:
        reason = first_line(getattr(error, "orig", None) or error)
        raise TrackingError(
            f"the tracking database must be one that can be read, got "
            f"{without_password(uri)} ({reason}); {ELSEWHERE}"
        ) from error
    finally:
        engine.dispose()
    if not found:
        raise TrackingError(
            f"the tracking database must have the tables of this MLflow, got "
            f"{without_password(uri)} without; `python -m ray_jobs.tune` makes them, or {ELSEWHERE}"
        )


def create_sqlite(path: Path) -> None:
    """Makes an empty tracking database in memory and puts it in place whole, unless there is one.

    So nobody ever sees half a schema, however many processes start at once and wherever one is
    killed; and 70 migrations need one write to the disk, not hundreds (measured: 1.7 s, not 4-6).

    Raises:
        TrackingError: The file cannot be made.
    """
    if path.exists():
        return
    import sqlalchemy
    from sqlalchemy.pool import StaticPool

    # Another process may be doing the same; the first to link its file wins.
    draft = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.new")
    engine = sqlalchemy.create_engine(
        "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
    )
    try:
        if not make_tables(engine):
            return
        with _explained(path), closing(sqlite3.connect(draft)) as target:
            with closing(engine.raw_connection()) as source:
                source.driver_connection.backup(target)  # type: ignore[union-attr]
            _link(draft, path)
    finally:
        engine.dispose()
        draft.unlink(missing_ok=True)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise TrackingError(
            f"the tracking database must be an SQLite file that can be read and written, got "
            f"{path} ({first_line(error)}); correct the file or its permissions, or {ELSEWHERE}"
        ) from error


def _open(path: Path, timeout: float) -> sqlite3.Connection:
    # mode=rw: a file that vanished is not made anew, empty.
    return sqlite3.connect(
        f"{path.as_uri()}?mode=rw", uri=True, timeout=timeout, isolation_level=None
    )


def _link(draft: Path, path: Path) -> None:
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        if not path.exists():
            draft.replace(path)
