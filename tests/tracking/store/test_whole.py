"""Runs recorded whole leave the same rows as MLflow's own way, or none."""

from __future__ import annotations

import math
from typing import Any

import pytest
import sqlalchemy
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException

from mlops.tracking.store.store import Store, open_store
from mlops.tracking.store.whole import (
    LONGEST_NAME,
    LONGEST_VALUE,
    WholeRun,
    record_whole,
    takes_whole_runs,
)

TABLES = ("runs", "metrics", "latest_metrics", "params", "tags")
HISTORY = [Metric(key, epoch / 7, 1000, epoch) for epoch in range(40) for key in ("loss", "f1")]
PARAMS = {"batch_size": "32", "hidden_dims": "[64, 32]"}
TAGS = {"study": "a", "trial": "7", "mlflow.parentRunId": "0" * 32}
CASES = {
    "a trial": (PARAMS, TAGS, HISTORY),
    "of a user": (PARAMS, {**TAGS, "mlflow.user": "me"}, HISTORY),
    "nothing in it": ({}, {}, []),
    "a metric twice": (PARAMS, TAGS, [*HISTORY, *HISTORY[:10]]),
    "backwards": (PARAMS, TAGS, HISTORY[::-1]),
    "long values": (
        {"text": "x" * LONGEST_VALUE},
        {**TAGS, "result": "x" * LONGEST_VALUE},
        HISTORY,
    ),
    "not finite": (PARAMS, TAGS, [Metric("loss", math.nan, 1, 1), Metric("f1", math.inf, 1, 1)]),
}


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest) -> Store:
    return open_store(request.getfixturevalue(f"{request.param}_uri"))


def rows_of(store: Store, run_id: str) -> dict[str, list[Any]]:
    """Every row of a run, but for its id."""
    found = {}
    with store.client._tracking_client.store.engine.connect() as database:
        for table in TABLES:
            query = sqlalchemy.text(f"select * from {table} where run_uuid = :run")
            rows = database.execute(query, {"run": run_id}).mappings()
            found[table] = sorted(
                str(dict(row)).replace(run_id, "the run") for row in rows.fetchall()
            )
    return found


def run_of(params: Any, tags: Any, metrics: Any, name: str = "trial-0007") -> WholeRun:
    return WholeRun(name, 1000, 2000, "FINISHED", params, tags, metrics)


def mlflows_own(store: Store, run: WholeRun) -> str:
    created = store.client.create_run(store.experiment_id, run.started_ms, dict(run.tags), run.name)
    run_id = str(created.info.run_id)
    for name, value in run.params.items():
        store.client.log_param(run_id, name, value)
    store.client.log_batch(run_id, run.metrics)
    store.client.set_terminated(run_id, run.status, run.ended_ms)
    return run_id


def test_rows_are_those_of_mlflow(store: Store) -> None:
    assert takes_whole_runs(store.client)
    runs = [run_of(*case) for case in CASES.values()]
    assert all(run.is_plain for run in runs)
    ours = record_whole(store.client, store.experiment_id, runs)
    assert len(set(ours)) == len(CASES)
    for run_id, run in zip(ours, runs, strict=True):
        rows = rows_of(store, run_id)
        assert rows == rows_of(store, mlflows_own(store, run))
        assert len(rows["runs"]) == 1
    found = store.client.get_run(ours[0])
    assert found.info.status == "FINISHED"
    assert found.data.params == PARAMS
    assert found.data.metrics["loss"] == 39 / 7


def test_all_or_none(store: Store) -> None:
    """The second run has a name that the database cannot take."""
    before = len(store.client.search_runs([store.experiment_id]))
    runs = [run_of(PARAMS, TAGS, HISTORY), run_of(PARAMS, TAGS, [Metric(None, 1.0, 1, 1)])]
    with pytest.raises(MlflowException):
        record_whole(store.client, store.experiment_id, runs)
    assert len(store.client.search_runs([store.experiment_id])) == before


def test_a_deleted_experiment_takes_none(store: Store) -> None:
    experiment = store.client.create_experiment("deleted")
    store.client.delete_experiment(experiment)
    with pytest.raises(MlflowException, match="must be in the 'active' state"):
        record_whole(store.client, experiment, [run_of(PARAMS, TAGS, [])])


@pytest.mark.parametrize(
    ("params", "tags", "name"),
    [
        ({"a": "x" * (LONGEST_VALUE + 1)}, {}, "n"),
        ({"a" * (LONGEST_NAME + 1): "x"}, {}, "n"),
        ({}, {"reason": "x" * (LONGEST_VALUE + 1)}, "n"),
        ({}, {}, "n" * (LONGEST_NAME + 1)),
    ],
)
def test_what_is_long_is_left_to_mlflow(params: Any, tags: Any, name: str) -> None:
    assert not run_of(params, tags, [], name).is_plain
    assert run_of(PARAMS, TAGS, []).is_plain
