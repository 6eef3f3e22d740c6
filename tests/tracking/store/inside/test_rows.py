"""Runs written as rows leave the same rows as MLflow's own way, or none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException

from mlops.tracking.store.inside.rows import (
    LONGEST_NAME,
    LONGEST_VALUE,
    is_plain,
    takes_rows,
    write_runs,
)
from mlops.tracking.store.runs import RunUpdate, create_run, end_run, fill_run, read_run
from mlops.tracking.store.store import Store, open_store

TABLES = ("runs", "metrics", "latest_metrics", "params", "tags")
HISTORY = [Metric(key, epoch / 7, 1000, epoch) for epoch in range(40) for key in ("loss", "f1")]
PARAMS = {"batch_size": "32", "hidden_dims": "[64, 32]"}
TAGS = {"study": "a", "trial": "7", "mlflow.parentRunId": "0" * 32}
BROKEN = [
    Metric("loss", value, 1000, step)
    for step, value in enumerate((math.nan, math.inf, -math.inf, 1.0, math.nan))
]
WHOLE = {
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
IN_PARTS = {
    "a history": [HISTORY],
    "backwards": [HISTORY[::-1]],
    "in two, the older last": [HISTORY[40:], HISTORY[:40]],
    "in two": [HISTORY[:40], HISTORY[40:]],
    "the same twice in a batch": [[*HISTORY, *HISTORY]],
    "not finite": [BROKEN],
    "not finite, in two": [BROKEN[:3], BROKEN[3:]],
    "equal steps": [[Metric("loss", value, 1000, 3) for value in (0.5, 2.0, 1.0)]],
    "equal steps in three": [[Metric("loss", value, 1000, 3)] for value in (0.5, 2.0, 1.0)],
    "later at an equal step": [[Metric("loss", 1.0, 2000, 3), Metric("loss", 2.0, 1000, 3)]],
    "another metric later": [HISTORY, [Metric("seconds", 1.5, 1000, 0)]],
    "none": [[]],
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


def update_of(
    params: Any, tags: Any, metrics: Any, name: str = "trial-0007", status: str | None = "FINISHED"
) -> RunUpdate:
    return RunUpdate(None, name, 1000, params, tags, metrics, status, 2000)


def by_rows(store: Store, updates: Sequence[RunUpdate]) -> list[str]:
    return write_runs(store.client, store.experiment_id, updates)


def by_client(store: Store, update: RunUpdate) -> str:
    run_id = update.run_id or create_run(store.client, store.experiment_id, update)
    fill_run(store.client, run_id, update)
    end_run(store.client, run_id, update)
    return run_id


def mlflows_own(store: Store, update: RunUpdate) -> str:
    """What MLflow's own calls leave, one for each value that is no metric."""
    made = store.client.create_run(
        store.experiment_id, update.started_ms, dict(update.tags), update.name
    )
    run_id = str(made.info.run_id)
    for name, value in update.params.items():
        store.client.log_param(run_id, name, value)
    store.client.log_batch(run_id, update.metrics)
    store.client.set_terminated(run_id, update.status, update.ended_ms)
    return run_id


def test_rows_of_whole_runs_are_those_of_mlflow(store: Store) -> None:
    assert takes_rows(store.client)
    updates = [update_of(*case) for case in WHOLE.values()]
    assert all(map(is_plain, updates))
    ours = by_rows(store, updates)
    assert len(set(ours)) == len(WHOLE)
    for run_id, update in zip(ours, updates, strict=True):
        rows = rows_of(store, run_id)
        assert rows == rows_of(store, mlflows_own(store, update))
        assert rows == rows_of(store, by_client(store, update))
        assert len(rows["runs"]) == 1
    found = read_run(store.client, ours[0])
    assert (found.status, found.ended_ms, found.params) == ("FINISHED", 2000, PARAMS)
    assert found.tags.items() >= TAGS.items()
    assert {(m.key, m.step, m.value) for m in found.metrics} == {
        (m.key, m.step, m.value) for m in HISTORY
    }
    assert store.client.get_run(ours[0]).data.metrics["loss"] == 39 / 7


def test_rows_of_runs_written_in_parts_are_those_of_mlflow(store: Store) -> None:
    """Together with others, some of which are new; ended or not."""
    theirs = [store.client.create_run(store.experiment_id, 1000, TAGS, "one") for _ in IN_PARTS]
    given = [update_of(PARAMS, TAGS, [], "one", None) for _ in IN_PARTS]
    ours = by_rows(store, given)
    for update, run in zip(given, theirs, strict=True):
        by_client(store, replace(update, run_id=run.info.run_id))
    for number in range(3):
        updates = []
        for run_id, run, parts in zip(ours, theirs, IN_PARTS.values(), strict=True):
            metrics = parts[number] if number < len(parts) else []
            status = "KILLED" if number + 1 == len(parts) else None
            tags = {"outcome": str(number), f"part {number}": "there"}
            update = update_of(PARAMS, tags, metrics, "one", status)
            updates.append(replace(update, run_id=run_id))
            by_client(store, replace(update, run_id=run.info.run_id))
        _, *written = by_rows(store, [update_of(PARAMS, TAGS, HISTORY), *updates])
        assert written == ours
        for run_id, run in zip(ours, theirs, strict=True):
            assert rows_of(store, run_id) == rows_of(store, run.info.run_id)
    assert rows_of(store, ours[0])["params"]


def test_all_or_none(store: Store) -> None:
    """The second run has a name that the database cannot take."""
    [known] = by_rows(store, [update_of(PARAMS, TAGS, [], status=None)])
    before = len(store.client.search_runs([store.experiment_id]))
    rows = rows_of(store, known)
    updates = [
        update_of(PARAMS, TAGS, HISTORY),
        replace(update_of(PARAMS, {"outcome": "there"}, HISTORY), run_id=known),
        update_of(PARAMS, TAGS, [Metric(None, 1.0, 1, 1)]),
    ]
    with pytest.raises(MlflowException):
        by_rows(store, updates)
    assert len(store.client.search_runs([store.experiment_id])) == before
    assert rows_of(store, known) == rows


def test_a_deleted_experiment_takes_none(store: Store) -> None:
    experiment = store.client.create_experiment("deleted")
    store.client.delete_experiment(experiment)
    with pytest.raises(MlflowException, match="must be in the 'active' state"):
        write_runs(store.client, experiment, [update_of(PARAMS, TAGS, [])])


def test_a_deleted_run_takes_nothing(store: Store) -> None:
    [run_id] = by_rows(store, [update_of(PARAMS, TAGS, [], status=None)])
    before = rows_of(store, run_id)
    store.client.delete_run(run_id)
    update = replace(update_of({}, {"outcome": "there"}, HISTORY), run_id=run_id)
    for way in (lambda: by_rows(store, [update]), lambda: by_client(store, update)):
        with pytest.raises(MlflowException, match="must be in the 'active' state"):
            way()
    after = rows_of(store, run_id)
    assert after["metrics"] == after["latest_metrics"] == []
    assert after["tags"] == before["tags"]


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
    assert not is_plain(update_of(params, tags, [], name))
    assert is_plain(update_of(PARAMS, TAGS, []))
