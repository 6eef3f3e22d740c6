"""Bulk metrics leave the same rows as MLflow's own way."""

from __future__ import annotations

import math

import pytest
import sqlalchemy
from mlflow.entities import Metric, Param, RunTag

from mlops.tracking.store.batch import log_batch
from mlops.tracking.store.store import Store, open_store

TABLES = ("metrics", "latest_metrics", "params", "tags")


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest) -> Store:
    return open_store(request.getfixturevalue(f"{request.param}_uri"))


def rows_of(store: Store, run_id: str) -> dict[str, list[tuple[object, ...]]]:
    """Every row of a run, but for the run's id."""
    found = {}
    with store.client._tracking_client.store.engine.connect() as database:
        for table in TABLES:
            query = sqlalchemy.text(f"select * from {table} where run_uuid = :run")
            rows = database.execute(query, {"run": run_id}).mappings()
            found[table] = sorted(
                tuple(value for name, value in row.items() if name != "run_uuid") for row in rows
            )
    return found


def new_run(store: Store) -> str:
    run = store.client.create_run(store.experiment_id, run_name="one", tags={"mlflow.user": "me"})
    return str(run.info.run_id)


HISTORY = [Metric(key, epoch / 7, 1000, epoch) for epoch in range(40) for key in ("loss", "f1")]
CASES = {
    "a history": [HISTORY],
    "backwards": [HISTORY[::-1]],
    "in two, the older last": [HISTORY[40:], HISTORY[:40]],
    "in two": [HISTORY[:40], HISTORY[40:]],
    "the same twice in a batch": [[*HISTORY, *HISTORY]],
    "the same batch twice": [HISTORY, HISTORY],
    "partly on record": [HISTORY[:30], HISTORY[20:]],
    "not finite": [
        [
            Metric("loss", value, 1000, step)
            for step, value in enumerate((math.nan, math.inf, -math.inf, 1.0, math.nan))
        ]
    ],
    "equal steps": [[Metric("loss", value, 1000, 3) for value in (0.5, 2.0, 1.0)]],
    "later at an equal step": [[Metric("loss", 1.0, 2000, 3), Metric("loss", 2.0, 1000, 3)]],
    "none": [[]],
}


@pytest.mark.parametrize("batches", CASES.values(), ids=CASES)
def test_rows_are_those_of_mlflow(store: Store, batches: list[list[Metric]]) -> None:
    params = [Param("batch_size", "32")]
    ours, theirs = new_run(store), new_run(store)
    for number, batch in enumerate(batches):
        tags = [RunTag("outcome", str(number))]
        log_batch(store.client, ours, batch, params, tags)
        store.client.log_batch(theirs, batch, params, tags)
    assert rows_of(store, ours) == rows_of(store, theirs)
    assert rows_of(store, ours)["params"]


def test_a_refused_batch_leaves_nothing(store: Store) -> None:
    run_id = new_run(store)
    before = rows_of(store, run_id)
    store.client.set_terminated(run_id)
    store.client.delete_run(run_id)
    with pytest.raises(Exception, match="must be in the 'active' state"):
        log_batch(store.client, run_id, HISTORY, [], [])
    assert rows_of(store, run_id)["metrics"] == before["metrics"] == []
