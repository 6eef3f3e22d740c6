from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlops.data.table import Part, Parts
from mlops.errors import TrackingError
from mlops.tracking.store.experiment import active_run_from_environment
from mlops.tracking.store.store import Store, open_store, resolve_uri
from mlops.tracking.store.uris import without_password
from mlops.tracking.study.dataset import log_dataset

OPEN = "from mlops.tracking.store.store import open_store\n"


def test_a_store_is_made_in_the_working_directory(tmp_path: Path) -> None:
    store = open_store()
    assert store.uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert store.experiment_name == "mlops-classification"
    assert store.artifact_location == f"{tmp_path}/mlruns/{store.experiment_id}"
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]
    assert open_store() == store


def test_a_store_opened_again_is_the_same(store: Store) -> None:
    again = open_store(store.uri, store.experiment_name)
    assert again == store
    found = store.client.search_experiments(filter_string=f"name = '{store.experiment_name}'")
    assert len(found) == 1


def test_a_run_goes_where_the_experiment_was_made(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    run = sqlite_store.client.create_run(sqlite_store.experiment_id)
    sqlite_store.client.log_text(run.info.run_id, "x", "x.txt")
    folder = tmp_path / "mlruns" / sqlite_store.experiment_id / run.info.run_id / "artifacts"
    assert (folder / "x.txt").read_text() == "x"
    assert not list(elsewhere.iterdir())


def test_two_processes_may_make_a_store_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code = OPEN + "print(open_store('sqlite:///mlflow.db', 'one').experiment_id)"
    repository = str(Path(__file__).parents[3])
    monkeypatch.setenv("PYTHONPATH", repository)
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    answers = [process.communicate(timeout=100) for process in started]
    assert answers == [("1\n", "")] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


def test_the_database_is_the_one_that_mlflow_expects(empty_database: Path) -> None:
    from mlflow.store.db.utils import _all_tables_exist, _verify_schema
    from sqlalchemy import create_engine

    engine = create_engine(f"sqlite:///{empty_database}")
    assert _all_tables_exist(engine)
    _verify_schema(engine)
    engine.dispose()


@pytest.mark.parametrize(
    ("setting", "environment", "expected"),
    [
        (None, None, "sqlite:///{here}/mlflow.db"),
        ("sqlite:///a b.db", None, "sqlite:///{here}/a b.db"),
        ("sqlite:////x/y.db", None, "sqlite:////x/y.db"),
        ("sqlite:///a.db", "http://host:5000", "http://host:5000"),
        (None, "sqlite:///b.db", "sqlite:///{here}/b.db"),
        ("http://host:5000", None, "http://host:5000"),
    ],
)
def test_the_environment_wins_over_the_setting(
    setting: str | None,
    environment: str | None,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    if environment:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", environment)
    assert resolve_uri(setting) == expected.format(here=tmp_path)


def test_a_folder_with_a_blank_will_do(sqlite_uri: str, tmp_path: Path) -> None:
    folder = tmp_path / "my 100% folder"
    folder.mkdir()
    (tmp_path / "mlflow.db").rename(folder / "mlflow.db")
    store = open_store(f"sqlite:///{folder}/mlflow.db")
    assert store.client.get_experiment(store.experiment_id).name == store.experiment_name


@contextmanager
def unusable(kind: str, path: Path) -> Iterator[None]:
    """Makes a database that cannot be used, of some kind."""
    if kind == "not a database":
        path.write_text("no database, but long enough to have a header" * 20)
    elif kind == "a folder":
        path.mkdir()
    elif kind == "locked":
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            yield
        return
    elif kind == "read-only":
        sqlite3.connect(path).close()
        path.chmod(0o400)
        path.parent.chmod(0o500)
        yield
        path.parent.chmod(0o700)
        return
    yield


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("no folder", "a folder that exists"),
        ("not a database", "file is not a database"),
        ("a folder", "unable to open database file"),
        ("locked", "database is locked"),
        pytest.param(
            "read-only",
            "read-only",
            marks=pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere"),
        ),
    ],
)
def test_an_unusable_file_is_said_in_a_line(kind: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "folder" / "mlflow.db"
    if kind != "no folder":
        path.parent.mkdir()
    with unusable(kind, path), pytest.raises(TrackingError) as caught:
        open_store(f"sqlite:///{path}", timeout=0.3)
    message = str(caught.value)
    assert reason in message
    assert str(path) in message
    assert "MLFLOW_TRACKING_URI" in message
    assert "\n" not in message


@pytest.mark.parametrize("uri", ["sqlite:////nowhere/mlflow.db", "http://127.0.0.1:9"])
def test_nothing_but_our_error_is_said(
    uri: str, python_elsewhere: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    code = OPEN + "import sys\ntry:\n open_store(sys.argv[1])\nexcept Exception as e:\n print(e)"
    done = python_elsewhere(code, uri, repository=True)
    assert done.stderr == ""
    assert done.stdout.startswith("the tracking ")
    assert done.stdout.count("\n") == 1


class Answer(BaseHTTPRequestHandler):
    """Answers every request with the status that the path of the URI names."""

    def do_GET(self) -> None:
        self.send_response(int(self.path.split("/")[1]))
        self.end_headers()
        self.wfile.write(b"Invalid Host header" if "named" in self.path else b"<html>")

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def no_mlflow() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        ("500", "check the URI"),
        ("503", "check the URI"),
        ("404", "check the URI"),
        ("401", "MLFLOW_TRACKING_TOKEN"),
        ("403", "MLFLOW_TRACKING_TOKEN"),
        ("403/named", "--allowed_hosts"),
    ],
)
def test_a_server_that_is_no_mlflow_is_refused_at_once(
    status: str, remedy: str, no_mlflow: str
) -> None:
    started = time.monotonic()
    with pytest.raises(TrackingError, match=f"got HTTP {status[:3]} from {no_mlflow}.*{remedy}"):
        open_store(f"{no_mlflow}/{status}")
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("scheme", ["http", "postgresql"])
def test_a_port_where_nobody_listens_is_refused_at_once(scheme: str) -> None:
    started = time.monotonic()
    with pytest.raises(TrackingError, match=r"Connection refused.*start it, or set MLFLOW_"):
        open_store(f"{scheme}://127.0.0.1:9")
    assert time.monotonic() - started < 10


def test_a_server_that_never_answers_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        started = time.monotonic()
        with pytest.raises(TrackingError, match=f"http://127.0.0.1:{port} .*tim"):
            open_store(f"http://127.0.0.1:{port}", timeout=4)
        assert time.monotonic() - started < 8


@pytest.mark.parametrize("uri", ["ftp://host/x", "./mlruns"])
def test_other_uris_are_refused(uri: str) -> None:
    with pytest.raises(TrackingError, match=f"must be usable, got {uri} "):
        open_store(uri)


@pytest.mark.parametrize("uri", ["sqlite://", "sqlite:///", "sqlite:///:memory:"])
def test_a_database_in_memory_is_refused(uri: str) -> None:
    with pytest.raises(TrackingError, match=f"must outlive the job, got {uri}, "):
        open_store(uri)


def test_the_store_of_a_submitted_job_outlives_ray_s_copy_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, copy = tmp_path / "home", tmp_path / "copy"
    home.mkdir()
    copy.mkdir()
    monkeypatch.chdir(copy)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    store = open_store()
    assert store.uri == f"sqlite:///{home}/mlflow.db"
    run_id = store.client.create_run(store.experiment_id).info.run_id
    store.client.log_text(run_id, "text", "file.txt")
    assert [*home.glob("mlruns/**/file.txt")]
    assert list(copy.iterdir()) == []


def test_a_file_store_is_used_when_the_user_opts_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    store = open_store(f"{tmp_path}/mlruns")
    assert (tmp_path / "mlruns" / store.experiment_id / "meta.yaml").is_file()


def test_a_deleted_experiment_is_refused(store: Store) -> None:
    experiment_id = store.client.create_experiment(f"gone {time.time_ns()}")
    name = store.client.get_experiment(experiment_id).name
    store.client.delete_experiment(experiment_id)
    remedy = f"mlflow experiments restore --experiment-id {experiment_id}"
    with pytest.raises(TrackingError, match=remedy):
        open_store(store.uri, name)


def test_a_run_made_by_mlflow_run_names_the_experiment(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert active_run_from_environment() is None
    experiment_id = sqlite_store.client.create_experiment("other")
    run = sqlite_store.client.create_run(experiment_id)
    monkeypatch.setenv("MLFLOW_RUN_ID", run.info.run_id)
    assert active_run_from_environment() == run.info.run_id
    opened = open_store(sqlite_store.uri, "ignored")
    assert (opened.experiment_name, opened.experiment_id) == ("other", experiment_id)
    assert sqlite_store.client.get_experiment_by_name("ignored") is None


def test_a_run_that_does_not_exist_is_refused(
    sqlite_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    with pytest.raises(TrackingError, match=r"must name a run.*unset MLFLOW_RUN_ID"):
        open_store(sqlite_uri)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("http://host:5000", "http://host:5000"),
        ("http://user:secret@host:5000/x", "http://user:***@host:5000/x"),
        ("postgresql://u:s@h/db?sslmode=require", "postgresql://u:***@h/db?sslmode=require"),
        ("sqlite:////x/y.db", "sqlite:////x/y.db"),
    ],
)
def test_passwords_are_not_shown(uri: str, expected: str) -> None:
    assert without_password(uri) == expected
    assert "secret" not in repr(Store(uri, "e", "1", "a"))


def test_a_table_is_recorded_without_its_rows(store: Store) -> None:
    table = pd.DataFrame({"a b": [0.5, 1.5, 2.5], "n": [1, 2, 3], "t": list("xyz")})
    rows = [np.array([row]) for row in range(3)]
    part, validation, test = (Part(table, row, np.array([0])) for row in rows)
    parts = Parts(
        part, validation, test, ["no", "yes"], "y", "toy", "sklearn:toy", "0123abcd", (), ()
    )
    run_id = store.client.create_run(store.experiment_id).info.run_id
    log_dataset(store, run_id, parts)
    [logged] = store.client.get_run(run_id).inputs.dataset_inputs
    dataset = logged.dataset
    assert (dataset.name, dataset.digest, dataset.source_type) == ("toy", "0123abcd", "sklearn")
    assert json.loads(dataset.source) == {"uri": "sklearn:toy"}
    assert {tag.key: tag.value for tag in logged.tags} == {"mlflow.data.context": "training"}
    profile = json.loads(dataset.profile)
    assert (profile["num_rows"], profile["train_rows"], profile["columns"]) == (3, 1, 3)
    columns = json.loads(dataset.schema)["mlflow_colspec"]
    assert [(c["name"], c["type"]) for c in columns] == [
        ("a b", "double"),
        ("n", "long"),
        ("t", "string"),
    ]
