"""Who only reads models opens the registry alone: nothing is made or written there."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import requests
from servers import MlflowServer
from test_registry import log

from mlops.console import run_job
from mlops.errors import TrackingError
from mlops.serving.champion.champion import Champion
from mlops.tracking.models import promotion, registry
from mlops.tracking.store.store import Store, open_registry, open_store
from ray_jobs import predict, promote


def everything(folder: Path) -> dict[str, tuple[int, str]]:
    """All files of a folder: when they were written last, and what is in them."""
    return {
        str(path): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in folder.rglob("*")
        if path.is_file()
    }


def experiments(database: Path) -> list[str]:
    with closing(sqlite3.connect(database)) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM experiments")]


def found(served: Champion) -> int | None:
    """The version that an endpoint has read; without a card it is not served."""
    return None if served.refused is None else served.refused.version


def delete_experiment(store: Store) -> None:
    store.client.delete_experiment(store.experiment_id)


def delete_all_for_good(store: Store) -> None:
    """As `mlflow gc` does; MLflow's own client makes the default one anew."""
    path = store.uri.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path)) as connection:
        for table in ("logged_models", "runs", "experiments"):
            connection.execute(f"DELETE FROM {table}")
        connection.commit()


@pytest.mark.parametrize("happened", [lambda store: None, delete_experiment, delete_all_for_good])
def test_models_are_read_and_nothing_is_written(
    happened: Callable[[Store], None], sqlite_store: Store, tmp_path: Path
) -> None:
    version = registry.register(sqlite_store, log(sqlite_store), alias="champion")
    happened(sqlite_store)
    before = everything(tmp_path)
    opened = open_registry(sqlite_store.uri)
    assert registry.version_of(opened, "mlp", "champion") == version
    assert registry.load_version(opened, "mlp", "champion").version == version
    assert registry.run_of(opened, "mlp", version)
    served = Champion(sqlite_store.uri)
    served.refresh()
    assert found(served) == version
    assert everything(tmp_path) == before


def test_who_promotes_makes_no_experiment(sqlite_store: Store) -> None:
    version = registry.register(sqlite_store, log(sqlite_store))
    delete_all_for_good(sqlite_store)
    assert promotion.promote(open_registry(sqlite_store.uri), "mlp", version).champion == version
    assert experiments(Path(sqlite_store.uri.removeprefix("sqlite:///"))) == []


@pytest.mark.parametrize("query", ["", "?timeout=5"])
@pytest.mark.parametrize(
    "job",
    [
        lambda uri: promote.main(["--tracking.uri", uri]),
        lambda uri: predict.main(
            ["--tracking.uri", uri, "--input", "table.csv", "--output", "scored.csv"]
        ),
    ],
    ids=["promote", "predict"],
)
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "the tracking store must be there, got none at {}"),
        ("tables", "the tracking database must have the tables of this MLflow, got"),
        ("rubbish", "the tracking database must be one that can be read, got"),
    ],
)
def test_a_store_that_is_none_is_told_and_left_as_it_is(
    content: str | None,
    expected: str,
    job: Callable[[str], dict[str, object]],
    query: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "odd name #.db"
    (tmp_path / "table.csv").write_text("a,b\n1,x\n")
    if content == "tables":  # somebody's own
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE theirs (a)")
            connection.commit()
    elif content is not None:
        path.write_bytes(b"no database " * 1000)
    before = everything(tmp_path)
    assert run_job(lambda: job(f"sqlite:///{path}{query}")) == 2
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith(f"error: {expected.format(path)}")
    assert everything(tmp_path) == before
    served = Champion(f"sqlite:///{path}")
    served.refresh()
    assert expected.format(path) in str(served.registry_error)
    assert everything(tmp_path) == before


def test_an_endpoint_finds_a_store_that_is_made_later(tmp_path: Path) -> None:
    served = Champion(f"sqlite:///{tmp_path}/mlflow.db")
    served.refresh()
    assert "must be there" in str(served.registry_error)
    store = open_store(f"sqlite:///{tmp_path}/mlflow.db")
    version = registry.register(store, log(store), alias="champion")
    served.refresh()
    assert served.registry_error is None
    assert found(served) == version


def test_a_folder_of_files_is_read_when_the_user_opts_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(TrackingError, match="must be there, got none at"):
        open_registry(f"{tmp_path}/mlruns")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    with pytest.raises(TrackingError, match="must be there, got none at"):
        open_registry(f"{tmp_path}/mlruns")
    assert list(tmp_path.iterdir()) == []
    store = open_store(f"{tmp_path}/mlruns")
    assert registry.version_of(store, "mlp", "champion") is None
    before = everything(tmp_path)
    assert registry.version_of(open_registry(f"{tmp_path}/mlruns"), "mlp", "champion") is None
    assert everything(tmp_path) == before


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "postgresql://127.0.0.1:9", "sqlite://"])
def test_others_are_refused_as_for_a_study(uri: str) -> None:
    with pytest.raises(TrackingError) as as_store:
        open_store(uri)
    with pytest.raises(TrackingError) as as_registry:
        open_registry(uri)
    assert str(as_registry.value) == str(as_store.value)


def test_who_may_only_read_may_read_models(postgresql_uri: str) -> None:
    import sqlalchemy

    store = open_store(postgresql_uri)
    version = registry.register(store, log(store), "readable", alias="champion")
    engine = sqlalchemy.create_engine(postgresql_uri)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("CREATE ROLE reader LOGIN"))
        connection.execute(sqlalchemy.text("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader"))
    engine.dispose()
    opened = open_registry(postgresql_uri.replace("//me@", "//reader@"))
    assert registry.load_version(opened, "readable", "champion").version == version


@pytest.fixture
def closed_server(
    empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """A server that lets `reader` read the model `mlp`, and no experiment."""
    folder = tmp_path / "server"
    folder.mkdir()
    (folder / "mlflow.db").write_bytes(empty_database.read_bytes())
    rules = folder / "rules.ini"
    rules.write_text(
        "[mlflow]\ndefault_permission = NO_PERMISSIONS\n"
        f"database_uri = sqlite:///{folder}/auth.db\nadmin_username = admin\n"
        "admin_password = a password of 1\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    server = MlflowServer(
        folder,
        flags=["--app-name", "basic-auth"],
        environment={
            "MLFLOW_AUTH_CONFIG_PATH": str(rules),
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "any",
        },
    )
    server.start()
    try:
        yield server.uri
    finally:
        server.stop()


@pytest.mark.slow
def test_who_may_see_no_experiment_may_read_models(
    closed_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def log_in(name: str) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", name)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "a password of 1")

    def ask(path: str, **given: str) -> None:
        admin = ("admin", "a password of 1")
        done = requests.post(f"{closed_server}/api/{path}", json=given, auth=admin, timeout=30)
        assert done.status_code == 200, done.text

    log_in("admin")
    store = open_store(closed_server)
    version = registry.register(store, log(store), alias="champion")
    ask("2.0/mlflow/users/create", username="reader", password="a password of 1")
    right = {"resource_type": "registered_model", "resource_id": "mlp", "permission": "READ"}
    ask("3.0/mlflow/users/permissions/grant", username="reader", **right)
    log_in("reader")
    with pytest.raises(TrackingError, match="HTTP 403"):
        open_store(closed_server)
    opened = open_registry(closed_server)
    assert registry.version_of(opened, "mlp", "champion") == version
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "another one")
    with pytest.raises(TrackingError, match=r"HTTP 401 .*MLFLOW_TRACKING_USERNAME"):
        open_registry(closed_server)
