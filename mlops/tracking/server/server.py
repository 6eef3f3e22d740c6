"""A tracking server for a team: `mlflow server` over PostgreSQL, on one machine.

Both are children of this process, in a folder that keeps their data, and end with it, also when it
is killed.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from urllib.request import urlopen

import psutil

from mlops.errors import InputError, RecordError, first_line
from mlops.files import is_uri
from mlops.tracking.server.addresses import as_in_a_uri, for_clients, guards, is_loopback
from mlops.tracking.server.daemon import Daemon, running
from mlops.tracking.server.postgresql import postgresql

SHORTEST_PASSWORD = 12
# What a server keeps in its folder besides the lock, which stays empty, and artifacts.
_OWN = ("postgresql", "postgresql.log", "mlflow.log", "authentication.ini", "session.key")


@dataclass(frozen=True)
class Server:
    """What is to be served, and to whom.

    Attributes:
        host: Address to listen on.
        port: Port to listen on.
        folder: For PostgreSQL's data, artifacts and logs.
        database: URI of a database; None for PostgreSQL in the folder.
        artifacts: A folder or a URI such as `s3://bucket/path`; None for one in the folder.
        authentication: Let in who has a name and a password; the first one, the administrator, is
            `MLFLOW_TRACKING_USERNAME` with `MLFLOW_TRACKING_PASSWORD`.
        allowed_hosts: Names by which clients may call it, separated by commas; by default this
            machine's name and addresses, private addresses and localhost.
        workers: Processes that answer.
    """

    host: str = "127.0.0.1"
    port: int = 5000
    folder: str = "mlflow-server"
    database: str | None = None
    artifacts: str | None = None
    authentication: bool = False
    allowed_hosts: str | None = None
    workers: int = 2

    @property
    def uri(self) -> str:
        return f"http://{as_in_a_uri(self.host)}:{self.port}"


def serve(server: Server) -> NoReturn:
    """Serves until interrupted.

    Raises:
        InputError: A setting, the folder or a program that is needed cannot be used.
        RecordError: It has ended by itself.
        KeyboardInterrupt: The user stopped it.
    """
    account = _account(server)
    _check(server)
    folder = Path(server.folder).expanduser().absolute()
    with ExitStack() as stack:
        with _explained(folder):
            daemons = _start(server, folder, account, stack)
        print(f"serving the record on {server.uri}, kept in {folder}", file=sys.stderr)
        print(
            f"clients: export MLFLOW_TRACKING_URI={for_clients(server.host, server.port)}",
            file=sys.stderr,
        )
        sys.stderr.flush()
        while True:
            for daemon in daemons:
                if (status := daemon.process.poll()) is not None:
                    raise RecordError(
                        f"{daemon.name} must go on, got exit status {status}; see {daemon.log}, "
                        "and start this job again: the record is kept"
                    )
            time.sleep(0.5)


def _start(
    server: Server, folder: Path, account: Mapping[str, str], stack: ExitStack
) -> list[Daemon]:
    """Starts what serves, to be ended with the stack."""
    stack.enter_context(_held(folder))
    database, daemons = server.database, []
    if database is None:
        database, daemon = stack.enter_context(postgresql(folder))
        daemons.append(daemon)
    environment = _environment(folder, database, account)
    command = _command(server, folder)
    log, how_to_end = folder / "mlflow.log", signal.SIGTERM
    print("starting mlflow server", file=sys.stderr, flush=True)
    # Where this process is: the path of an SQLite file may be relative.
    started = running("mlflow server", command, log, how_to_end, environment, Path.cwd())
    daemons.append(stack.enter_context(started))
    # Who answers may be another server, started at the same time.
    while not (_answers(server) and _listens(daemons[-1], server.port)):
        daemons[-1].wait()
    return daemons


def _listens(daemon: Daemon, port: int) -> bool:
    """Tells whether it is a program's own process, or a child of it, that listens at a port."""
    with suppress(psutil.Error):
        process = psutil.Process(daemon.process.pid)
        for one in (process, *process.children(recursive=True)):
            for connection in one.net_connections(kind="tcp"):
                if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                    return True
    return False


def _account(server: Server) -> dict[str, str]:
    """Returns the administrator's name and password as the server's environment has them."""
    if not server.authentication:
        if not is_loopback(server.host):
            raise InputError(
                f"host: must be of this machine alone without authentication, got {server.host}; "
                "add --authentication true"
            )
        return {}
    name = os.environ.get("MLFLOW_TRACKING_USERNAME", "")
    password = os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
    if not name or len(password) < SHORTEST_PASSWORD:
        raise InputError(
            "authentication: must have the administrator's name in MLFLOW_TRACKING_USERNAME and a "
            f"password of {SHORTEST_PASSWORD} letters or more in MLFLOW_TRACKING_PASSWORD, got "
            f"{'a shorter one' if name and password else 'none'}; set them"
        )
    return {"MLFLOW_AUTH_ADMIN_USERNAME": name, "MLFLOW_AUTH_ADMIN_PASSWORD": password}


def _check(server: Server) -> None:
    _check_artifacts(server.artifacts)
    if server.database is not None:
        _check_database(server.database)
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((server.host, server.port))
        except OSError as error:
            raise InputError(
                f"host, port: must be free to listen on, got {server.uri} ({error.strerror}); "
                "choose another --port"
            ) from error


def _check_artifacts(place: str | None) -> None:
    if is_uri(place or ""):
        if not str(place).startswith("s3://"):
            raise InputError(
                f"artifacts: must be a folder or s3://BUCKET/PATH, got {place}; name one of these"
            )
        if importlib.util.find_spec("boto3") is None:
            raise InputError(
                f"artifacts: {place} must have its client installed, got none; `pip install boto3`"
            )


def _check_database(uri: str) -> None:
    """Connects once: MLflow would try for minutes."""
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError

    try:
        engine = create_engine(uri)
        engine.connect().close()
        engine.dispose()
    except (SQLAlchemyError, ImportError, ValueError) as error:
        reason = first_line(getattr(error, "orig", None) or error)
        raise InputError(
            f"database: must be one that can be reached, got: {reason}; give its URI, such as "
            "postgresql+psycopg://NAME:PASSWORD@HOST/DATABASE"
        ) from error


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"folder: must be one that can be written, got {error.filename or folder} "
            f"({error.strerror}); name another"
        ) from error


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Makes the folder, unless it is another's, and keeps other servers out of it."""
    lock = folder / "lock"
    if not lock.exists():
        others = [folder / name for name in _OWN if (folder / name).exists()]
    else:
        others = [lock] if not lock.is_file() or lock.stat().st_size else []
    if others:
        raise InputError(
            f"folder: must be a new one or a server's own, got {folder}, in which {others[0].name} "
            "is another's; name another"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with lock.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"folder: must be without a server, got {folder}, which one is serving; stop it "
                "or name another"
            ) from error
        yield


def _environment(folder: Path, database: str, account: Mapping[str, str]) -> dict[str, str]:
    """Returns the server's environment; no secret is on a command line or open to others."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("MLFLOW_") or name.startswith("MLFLOW_S3_")
    }
    kept["MLFLOW_DISABLE_TELEMETRY"] = "true"
    kept["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    kept["MLFLOW_BACKEND_STORE_URI"] = database  # it may hold a password
    if account:
        rules = folder / "authentication.ini"
        # The section's values are read as they stand but for the sign of an interpolation.
        text = (
            f"[mlflow]\ndefault_permission = READ\ndatabase_uri = {database.replace('%', '%%')}\n"
        )
        text += "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        _write_secret(rules, text)
        key = folder / "session.key"  # kept, so that who has logged in stays so
        if not key.exists():
            _write_secret(key, secrets.token_hex(32))
        kept |= account
        kept["MLFLOW_AUTH_CONFIG_PATH"] = str(rules)
        kept["MLFLOW_FLASK_SERVER_SECRET_KEY"] = key.read_text(encoding="utf-8")
    return kept


def _write_secret(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def _command(server: Server, folder: Path) -> list[str]:
    artifacts = server.artifacts or str(folder / "artifacts")
    if not is_uri(artifacts):
        path = Path(artifacts).expanduser().absolute()
        path.mkdir(parents=True, exist_ok=True)
        artifacts = str(path)
    command = [sys.executable, "-m", "mlflow", "server", "--host", server.host]
    command += ["--port", str(server.port), "--workers", str(server.workers)]
    command += ["--artifacts-destination", artifacts]
    if server.authentication:
        command += ["--app-name", "basic-auth"]
    return [*command, *guards(server.host, server.allowed_hosts)]


def _answers(server: Server) -> bool:
    with (
        suppress(OSError),
        urlopen(f"{for_clients(server.host, server.port, here=True)}/health", timeout=5),
    ):
        return True
    return False
