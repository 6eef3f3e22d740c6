"""Real stores: an SQLite file per test, and one `mlflow server` for all of them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from servers import MlflowServer, postgresql

from mlops.tracking.store.database import create_sqlite
from mlops.tracking.store.store import Store, open_store

REPOSITORY = Path(__file__).parents[2]
# MLflow 3.17 on libraries newer than itself, and about its own type hints when first imported.
WARNINGS_OF_MLFLOW = [
    "ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning",
    "ignore:.*Any type hint is inferred as AnyType:UserWarning",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
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
    server = MlflowServer(folder)
    server.start()
    yield server.uri
    server.stop(signal.SIGTERM)


@pytest.fixture(scope="session")
def postgresql_uri() -> Iterator[str]:
    with postgresql() as uri:
        yield uri


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


@pytest.fixture(scope="module")
def module_store(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One store for all tests of a module."""
    folder = tmp_path_factory.mktemp("store")
    shutil.copy(empty_database, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield open_store(f"sqlite:///{folder}/mlflow.db")


@pytest.fixture
def parent(module_store: Store) -> str:
    """A study's run in it."""
    run = module_store.client.create_run(module_store.experiment_id, run_name="study")
    return str(run.info.run_id)
