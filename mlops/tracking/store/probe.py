"""Whether a tracking store can be used: found out within seconds, said in one line."""

from __future__ import annotations

import os
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.parse import urlsplit, urlunsplit

from mlops.errors import TrackingError, first_line

ELSEWHERE = "set MLFLOW_TRACKING_URI to another store, or unset it to use sqlite:///mlflow.db"
T = TypeVar("T")
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


class Question(NamedTuple):
    """What a tracking server is asked: a path, and what goes with it."""

    path: str
    given: dict[str, str]


EXPERIMENTS = Question("/api/2.0/mlflow/experiments/get", {"experiment_id": "0"})
# Whom experiments are closed to may still read models.
MODELS = Question("/api/2.0/mlflow/registered-models/search", {"max_results": "1"})


def check_server(uri: str, timeout: float, question: Question = EXPERIMENTS) -> None:
    """Asks a tracking server one question, without MLflow's minutes of retries.

    Args:
        uri: http or https.
        timeout: Seconds it may take altogether.
        question: The question.

    Raises:
        TrackingError: It does not answer, or not like an MLflow server that lets us in.
    """
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    def ask() -> tuple[int, bytes]:
        response = http_request(
            get_default_host_creds(uri),
            question.path,
            "GET",
            max_retries=0,
            # Once to connect and once to read, and a name may have two addresses.
            timeout=timeout / 3,
            raise_on_status=False,
            params=question.given,
        )
        return response.status_code, response.content

    status, content = _within(timeout, uri, ask)
    remedy = f"check the URI and the server, or {ELSEWHERE}"
    if status in (401, 403):
        remedy = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
        remedy += "MLFLOW_TRACKING_TOKEN"
    if b"Invalid Host" in content:
        remedy = "it does not go by that name: start it with that one among its --allowed_hosts"
    if status != 200 and not (status == 404 and b"error_code" in content):
        raise TrackingError(
            f"the tracking server must answer as MLflow does, got HTTP {status} from "
            f"{without_password(uri)}; {remedy}"
        )


def check_database(uri: str, timeout: float) -> None:
    """Connects to a database server once, without MLflow's minutes of retries.

    Args:
        uri: postgresql, mysql or mssql, with or without a driver's name.
        timeout: Seconds it may take altogether.

    Raises:
        TrackingError: Its driver is not installed, or it does not answer, or refuses us.
    """
    import sqlalchemy

    try:
        engine = sqlalchemy.create_engine(uri)
    except ImportError as error:
        raise TrackingError(
            f"the driver of a database must be installed, got {without_password(uri)} "
            f"({first_line(error)}); install it with pip, or {ELSEWHERE}"
        ) from error

    def connect() -> None:
        port = engine.url.port or _PORTS.get(engine.url.get_backend_name())
        if engine.url.host and port:
            socket.create_connection((engine.url.host, port), timeout / 2).close()
        try:
            engine.connect().close()
        finally:
            engine.dispose()

    _within(timeout, uri, connect)


def _within(timeout: float, uri: str, ask: Callable[[], T]) -> T:
    """Calls `ask` in a thread that is left behind when time is up: name look-up has no limit."""
    answers: list[T] = []
    errors: list[BaseException] = []

    def target() -> None:
        try:
            answers.append(ask())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=target, name="mlops-probe", daemon=True)
    thread.start()
    thread.join(timeout)
    if answers:
        return answers[0]
    reason = _root_of(errors[0]) if errors else f"no answer within {timeout:.0f} s"
    raise TrackingError(
        f"the tracking server must be reachable, got {without_password(uri)} ({reason}); start it, "
        f"or {ELSEWHERE}"
    ) from (errors[0] if errors else None)


def _root_of(error: BaseException) -> str:
    """Returns the first line of the error that started a chain."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return first_line(error)


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
    from mlflow.store.db.utils import _all_tables_exist
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
        found = _all_tables_exist(engine)
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
    from mlflow.store.db.utils import _initialize_tables
    from sqlalchemy.pool import StaticPool

    # Another process may be doing the same; the first to link its file wins.
    draft = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.new")
    engine = sqlalchemy.create_engine(
        "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
    )
    try:
        with _explained(path), closing(sqlite3.connect(draft)) as target:
            _initialize_tables(engine)
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


def without_password(uri: str) -> str:
    """Returns a URI that can be shown."""
    parts = urlsplit(uri)
    if parts.password is None:
        return uri
    return urlunsplit(parts._replace(netloc=f"{parts.username}:***@{parts.netloc.split('@')[-1]}"))
