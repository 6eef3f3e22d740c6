"""Real stores: an SQLite file per test, and one `mlflow server` for all of them."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from mlops.tracking.probe import create_sqlite
from mlops.tracking.store import Store, open_store

REPOSITORY = Path(__file__).parents[2]
# MLflow 3.17 on libraries newer than itself, and about its own type hints when first imported.
WARNINGS_OF_MLFLOW = [
    "ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning",
    "ignore:.*Any type hint is inferred as AnyType:UserWarning",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent:
            for line in WARNINGS_OF_MLFLOW:
                item.add_marker(pytest.mark.filterwarnings(line))


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each test starts in an empty folder, without anything of MLflow in its environment."""
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tracking database to copy: making one takes a second or two."""
    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    create_sqlite(path)
    return path


@pytest.fixture
def sqlite_uri(empty_database: Path, tmp_path: Path) -> str:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture(scope="session")
def server_uri(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(empty_database, folder / "mlflow.db")
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--workers", "1"]
    command += ["--port", str(port), "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={
                **clean,
                "MLFLOW_DISABLE_TELEMETRY": "true",
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            },
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)


def postgres_command(*command: str) -> list[str]:
    """A command of PostgreSQL's, which refuses to serve as root."""
    return (
        ["setpriv", "--reuid=nobody", "--clear-groups", *command] if not os.getuid() else [*command]
    )


@pytest.fixture(scope="session")
def postgresql_uri() -> Iterator[str]:
    if not shutil.which("initdb") or importlib.util.find_spec("psycopg") is None:
        pytest.skip("PostgreSQL is not installed here")
    # Not in pytest's folder, which is closed to other users.
    folder = Path(tempfile.mkdtemp(prefix="mlops-postgresql-"))
    if not os.getuid():
        shutil.chown(folder, "nobody")
    data, port = folder / "data", free_port()
    control = postgres_command("pg_ctl", "--pgdata", str(data), "--silent", "--wait")
    try:
        initdb = postgres_command("initdb", "--pgdata", str(data), "--auth=trust", "--username=me")
        subprocess.run(initdb, cwd="/", check=True, capture_output=True)
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
        start = [*control, "--log", str(folder / "log"), "--options", options, "start"]
        subprocess.run(start, cwd="/", check=True)
        yield f"postgresql+psycopg://me@127.0.0.1:{port}/postgres"
        subprocess.run([*control, "--mode=immediate", "stop"], cwd="/", check=True)
    finally:
        shutil.rmtree(folder)


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"mlflow server did not start (exit status {process.poll()})")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(params=["sqlite", "server", "postgresql"])
def store(request: pytest.FixtureRequest) -> Store:
    """The contract of every store: what is tested on one is tested on the others."""
    return open_store(request.getfixturevalue(f"{request.param}_uri"))


@pytest.fixture
def sqlite_store(sqlite_uri: str) -> Store:
    return open_store(sqlite_uri)


@pytest.fixture
def python_elsewhere(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs Python in a fresh process; `repository` says whether it can import this one."""

    def run(code: str, *arguments: str, repository: bool) -> subprocess.CompletedProcess[str]:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        if repository:
            environment["PYTHONPATH"] = str(REPOSITORY)
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    return run
