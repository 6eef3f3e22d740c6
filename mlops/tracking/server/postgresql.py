"""PostgreSQL in a folder: it listens on no port, only on a socket that is closed to others."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mlops.errors import InputError
from mlops.tracking.server.daemon import Daemon, running

# PostgreSQL does not run as root; Debian's packages make the first of these users.
USERS = ("postgres", "nobody")


@contextmanager
def postgresql(folder: Path) -> Iterator[tuple[str, Daemon]]:
    """Runs PostgreSQL with its data in a folder; yields its database's URI, and what runs.

    Raises:
        InputError: It is not installed, or cannot run there.
        OSError: The folder cannot be written.
    """
    data, log = folder / "postgresql", folder / "postgresql.log"
    user = _other_user()
    as_user = ["setpriv", f"--reuid={user}", f"--regid={_group(user)}", "--clear-groups"]
    become = as_user if user else []
    sockets = Path(tempfile.mkdtemp(prefix="mlops-"))  # such a path must be short
    try:
        data.mkdir(mode=0o700, exist_ok=True)
        if user:
            shutil.chown(data, user)
            shutil.chown(sockets, user)
        if not (data / "PG_VERSION").exists():
            _make_database(become, data)
        options = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={sockets}"]
        command = [*become, program("postgres"), "-D", str(data), *options]
        with running("PostgreSQL", command, log, signal.SIGINT, os.environ) as daemon:
            ready = [program("pg_isready"), "--quiet", "--host", str(sockets)]
            while subprocess.run(ready, check=False).returncode:
                daemon.wait()
            yield f"postgresql+psycopg://mlops@/postgres?host={sockets}", daemon
    finally:
        shutil.rmtree(sockets, ignore_errors=True)


def _other_user() -> str | None:
    """Returns whom PostgreSQL runs as where this process is root's."""
    if os.getuid():
        return None
    import pwd

    for name in USERS:
        with suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise InputError(
        f"user: must be another one than root for PostgreSQL, got no {' and no '.join(USERS)}; "
        "start it as another user"
    )


def _group(user: str | None) -> int:
    import pwd

    return pwd.getpwnam(user).pw_gid if user else os.getgid()


def _make_database(become: list[str], data: Path) -> None:
    command = [*become, program("initdb"), "--pgdata", str(data), "--username=mlops"]
    # Who may reach the socket is this user, or root.
    command += ["--auth=trust", "--data-checksums", "--encoding=UTF8", "--no-locale"]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise InputError(
            f"folder: must be one where PostgreSQL can keep its data, got {data} ({reason}); name "
            "another, or a --database of your own"
        )


def program(name: str) -> str:
    """Finds one of PostgreSQL's programs, which Debian keeps off the path."""
    found = shutil.which(name)
    if found is None:
        newest = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=_version)
        if not newest:
            raise InputError(
                f"database: PostgreSQL must be installed, got no {name}; `apt install postgresql`, "
                "or name a --database of your own"
            )
        found = str(newest[-1])
    return found


def _version(program: Path) -> float:
    with suppress(ValueError):
        return float(program.parents[1].name)
    return 0.0
