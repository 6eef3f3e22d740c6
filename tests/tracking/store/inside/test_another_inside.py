"""Where the inside of MLflow is another than the one known, its public client does the work."""

from __future__ import annotations

import ast
import importlib
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from study_harness import end, made

import mlops
from mlops.errors import TrackingError
from mlops.nn.records import METRIC_NAMES, Outcome
from mlops.tracking.store.inside import rows, schema
from mlops.tracking.store.inside.rows import takes_rows
from mlops.tracking.store.store import Store, open_registry, open_store
from mlops.tracking.study.writing import sender
from mlops.tracking.study.writing.writer import RunWriter

INSIDE = Path(mlops.__file__).parent / "tracking" / "store" / "inside"
# Modules of MLflow's that are not told in its documentation.
NOT_PUBLIC = ("mlflow.store", "mlflow.tracking._")


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Store:
    return open_store(request.getfixturevalue(f"{request.param}_uri"))


@pytest.fixture
def never_by_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*given: Any) -> None:
        raise AssertionError("tables that are not known were written to")

    monkeypatch.setattr(sender, "write_runs", write)


def record_study(store: Store) -> dict[int, Any]:
    """Records two trials and a copy; returns what MLflow says of them, but for ids and times."""
    parent = str(store.client.create_run(store.experiment_id).info.run_id)
    writer = RunWriter(made(store, parent), {"study": "one"})
    for trial in (0, 1):
        writer.start(trial, {"batch_size": 32}, {"pack": "0"})
    writer.start(2, {"batch_size": 32}, {"pack": "0", "duplicate_of": "1"})
    for trial in (0, 1):
        epochs = [
            {"trial": trial, "epoch": epoch, **dict.fromkeys(METRIC_NAMES, epoch / 7 + trial)}
            for epoch in range(1, 250)
        ]
        writer.record(epochs)
        end(writer, trial, Outcome.COMPLETED, metrics={"seconds": 1.5})
    writer.copy(2, 1)
    writer.close()
    query = f"tags.`mlflow.parentRunId` = '{parent}'"
    found = {}
    for run in store.client.search_runs([store.experiment_id], query):
        points = {
            name: sorted(
                (point.step, point.value)
                for point in store.client.get_metric_history(run.info.run_id, name)
            )
            for name in run.data.metrics
        }
        tags = {key: text for key, text in run.data.tags.items() if key != "mlflow.parentRunId"}
        shown = (run.info.run_name, run.info.status, run.data.params, tags, run.data.metrics)
        found[int(tags["trial"])] = (*shown, points)
    return found


def test_of_other_tables_than_those_known(
    database: Store, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    assert takes_rows(database.client)
    by_rows = record_study(database)
    monkeypatch.setattr(schema, "REVISION", "another")
    request.getfixturevalue("never_by_rows")
    assert not takes_rows(database.client)
    assert record_study(database) == by_rows
    assert set(by_rows) == {0, 1, 2}


def test_a_database_of_another_revision(sqlite_store: Store, never_by_rows: None) -> None:
    """MLflow looks at its revision when it opens one; a later version may have come meanwhile."""
    path = sqlite_store.uri.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'of another MLflow'")
        connection.commit()
    assert not takes_rows(sqlite_store.client)
    assert set(record_study(sqlite_store)) == {0, 1, 2}


@pytest.mark.parametrize("gone", ["_tracking_client", "store", "engine", "ManagedSessionMaker"])
def test_a_client_of_another_build(
    gone: str, sqlite_store: Store, never_by_rows: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is looked for within it is not there."""

    class Other:
        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def __getattr__(self, name: str) -> Any:
            if name == gone:
                raise AttributeError(name)
            found = getattr(self._inner, name)
            return Other(found) if name in ("_tracking_client", "store") else found

    monkeypatch.setitem(vars(sqlite_store), "client", Other(sqlite_store.client))
    assert not rows.is_database(sqlite_store.client)
    assert set(record_study(sqlite_store)) == {0, 1, 2}


def _hide(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Lets `from mlflow... import NAME` of the modules of `inside` fail, and no other's."""
    import builtins

    real = builtins.__import__

    def without(name: str, globals: Any = None, locals: Any = None, wanted: Any = (), *level: Any):  # type: ignore[no-untyped-def]
        here = (globals or {}).get("__name__", "")
        if here.startswith("mlops.tracking.store.inside") and set(wanted or ()) & set(names):
            raise ImportError(f"cannot import {wanted} from {name}")
        return real(name, globals, locals, wanted, *level)

    monkeypatch.setattr(builtins, "__import__", without)


def test_a_database_is_made_by_mlflow_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _hide(monkeypatch, "_initialize_tables")
    store = open_store(f"sqlite:///{tmp_path}/mlflow.db")
    assert takes_rows(store.client)
    assert set(record_study(store)) == {0, 1, 2}
    assert [path.name for path in tmp_path.glob("mlflow.db*")] == ["mlflow.db"]


def test_the_registry_is_read_by_the_public_client(
    sqlite_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    _hide(monkeypatch, "ModelRegistryClient", "_all_tables_exist")
    registry = open_registry(sqlite_uri)
    assert isinstance(registry.models, MlflowClient)
    registry.models.create_registered_model("mlp")
    registry.models.set_registered_model_tag("mlp", "promoter", "me")
    assert registry.models.get_registered_model("mlp").tags == {"promoter": "me"}
    registry.check_file()
    # Another file in its place: what is open of the first one cannot be closed.
    other = tmp_path / "other.db"
    shutil.copy(tmp_path / "mlflow.db", other)
    other.replace(tmp_path / "mlflow.db")
    for _ in range(2):
        with pytest.raises(TrackingError, match=r"the one that was opened.*start this again"):
            registry.check_file()
    empty = tmp_path / "empty.db"
    sqlite3.connect(empty).close()
    with pytest.raises(TrackingError, match="must have the tables of this MLflow"):
        open_registry(f"sqlite:///{empty}")


def _private(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("mlflow"):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith("mlflow")]
        yield from (
            name
            for name in names
            if name.startswith(NOT_PUBLIC) or any(p.startswith("_") for p in name.split("."))
        )
        if isinstance(node, ast.Attribute) and node.attr in (
            "_tracking_client",
            "_registry_client",
            "ManagedSessionMaker",
        ):
            yield node.attr


def test_the_inside_of_mlflow_is_used_in_one_place() -> None:
    found = {
        path.relative_to(INSIDE.parents[2]).as_posix(): names
        for path in INSIDE.parents[2].rglob("*.py")
        if (names := set(_private(ast.parse(path.read_text(encoding="utf-8")))))
    }
    assert found
    assert {path for path in found if not path.startswith("tracking/store/inside/")} == set()
    version = importlib.import_module("mlflow").__version__
    for path in INSIDE.glob("[!_]*.py"):
        documented = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        assert f"MLflow {version}" in str(documented), "read it in the version that is installed"
