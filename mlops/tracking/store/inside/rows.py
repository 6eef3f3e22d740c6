"""Many runs in one transaction, where the store is an SQL database that this process opens.

MLflow takes several transactions and some thirty queries to create a run, to fill and to end it,
and an object of SQLAlchemy's mapper for every value. A study of thousands of short trials would
spend most of its time on them. The rows here are the same. Read in MLflow 3.17.2,
store/tracking/sqlalchemy_store.py: `create_run`, `log_batch`, `update_run_info`.
"""

from __future__ import annotations

import uuid
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mlops.tracking.store.inside import schema
from mlops.tracking.store.runs import RunUpdate

if TYPE_CHECKING:
    from mlflow.entities import Metric
    from mlflow.tracking import MlflowClient

# Longer names and values are left to MLflow, which cuts or refuses them.
LONGEST_NAME = 250
LONGEST_VALUE = 5000

Row = dict[str, Any]


def is_database(client: MlflowClient) -> bool:
    """Whether the store is an SQL database that this process opens."""
    return _store(client) is not None


def takes_rows(client: MlflowClient) -> bool:
    """Whether it is one with the tables that are known here."""
    store = _store(client)
    return store is not None and schema.is_known(store.engine)


def is_plain(update: RunUpdate) -> bool:
    """Whether MLflow would record it as it is."""
    names = [*update.params, *update.tags, update.name]
    values = [*update.params.values(), *update.tags.values()]
    return all(len(name) <= LONGEST_NAME for name in names) and all(
        len(value) <= LONGEST_VALUE for value in values
    )


def write_runs(client: MlflowClient, experiment_id: str, updates: Sequence[RunUpdate]) -> list[str]:
    """Writes to runs, and makes those that are new, in one transaction: all of it or none.

    Args:
        client: A client whose store takes rows.
        experiment_id: The runs' experiment.
        updates: Plain ones, of as many runs.

    Returns:
        The runs' ids.

    Raises:
        MlflowException: The store does not take it.
    """
    experiment = client.get_experiment(experiment_id)
    _check_active(experiment, "experiment", experiment_id)
    ids = [update.run_id or uuid.uuid4().hex for update in updates]
    of_run = dict(zip(ids, updates, strict=True))
    known = {run_id: update for run_id, update in of_run.items() if update.run_id is not None}
    made = [_run(update, one, experiment) for one, update in of_run.items() if one not in known]
    params = {one: update.params for one, update in of_run.items()}
    tags = {one: _tags(update) for one, update in of_run.items()}
    metrics = {one: _metrics(client, one, update) for one, update in of_run.items()}
    latest = {one: _latest(rows) for one, rows in metrics.items()}
    with _session(client) as (session, tables):
        _insert(session, tables.SqlRun, made)
        _end_known(session, tables.SqlRun, known)
        _write_texts(session, tables.SqlParam, params, known)
        _write_texts(session, tables.SqlTag, tags, known)
        _insert(session, tables.SqlMetric, [row for rows in metrics.values() for row in rows])
        _write_latest(session, tables.SqlLatestMetric, latest, known)
    return ids


def _store(client: MlflowClient) -> Any:
    """Returns the store behind a client if it is an SQL one."""
    store = getattr(getattr(client, "_tracking_client", None), "store", None)
    return store if hasattr(store, "engine") and hasattr(store, "ManagedSessionMaker") else None


@contextmanager
def _session(client: MlflowClient) -> Iterator[tuple[Any, Any]]:
    """Yields a session that is committed with the block, and the module of its tables."""
    from mlflow.store.tracking.dbmodels import models

    with _store(client).ManagedSessionMaker(read_only=False) as session:
        yield session, models


def _check_active(found: Any, kind: str, name: str) -> None:
    from mlflow.entities import LifecycleStage
    from mlflow.exceptions import MlflowException

    if found is None or found.lifecycle_stage != LifecycleStage.ACTIVE:
        raise MlflowException(f"the {kind} {name} must be in the 'active' state")


def _insert(session: Any, table: Any, rows: list[Row]) -> None:
    from sqlalchemy import insert

    if rows:
        session.execute(insert(table.__table__), rows)


def _end_known(session: Any, table: Any, known: Mapping[str, RunUpdate]) -> None:
    """Ends runs that are on record already, if they do end."""
    for run_id, update in known.items():
        run = session.get(table, run_id)
        _check_active(run, "run", run_id)
        if update.status is not None:
            run.status, run.end_time = update.status, update.ended_ms


def _write_texts(
    session: Any, table: Any, texts: Mapping[str, Mapping[str, str]], known: Container[str]
) -> None:
    """Writes params or tags; runs on record may have some of them already."""
    rows = [
        {"key": key, "value": text, "run_uuid": run_id}
        for run_id, pairs in texts.items()
        for key, text in pairs.items()
    ]
    _insert(session, table, [row for row in rows if row["run_uuid"] not in known])
    for row in rows:
        if row["run_uuid"] in known:
            session.merge(table(**row))


def _write_latest(
    session: Any, table: Any, latest: Mapping[str, dict[str, Row]], known: Container[str]
) -> None:
    """Writes the latest values; runs on record may have some already."""
    from sqlalchemy import select

    of_new = [rows for run_id, rows in latest.items() if run_id not in known]
    _insert(session, table, [row for rows in of_new for row in rows.values()])
    for run_id, rows in latest.items():
        if run_id not in known:
            continue
        of_run = select(table).where(table.run_uuid == run_id)
        there = {entry.key: entry for entry in session.scalars(of_run.with_for_update())}
        for key, row in sorted(rows.items()):
            if key not in there:
                session.add(table(**row))
            elif _age(row) > _age(vars(there[key])):
                for name, value in row.items():
                    setattr(there[key], name, value)


def _run(update: RunUpdate, run_id: str, experiment: Any) -> Row:
    from mlflow.entities import LifecycleStage
    from mlflow.utils.uri import append_to_uri_path

    return {
        "run_uuid": run_id,
        "name": update.name,
        "artifact_uri": append_to_uri_path(experiment.artifact_location, run_id, "artifacts"),
        "experiment_id": int(experiment.experiment_id),
        "source_type": "UNKNOWN",
        "source_name": "",
        "entry_point_name": "",
        "source_version": "",
        "user_id": update.tags.get("mlflow.user", "unknown"),
        "status": update.status or "RUNNING",
        "start_time": update.started_ms,
        "end_time": None if update.status is None else update.ended_ms,
        "deleted_time": None,
        "lifecycle_stage": LifecycleStage.ACTIVE,
    }


def _tags(update: RunUpdate) -> dict[str, str]:
    """Returns a run's tags, among which a new one's name is."""
    name = {"mlflow.runName": update.name} if update.run_id is None else {}
    return {**name, **update.tags}


def _metrics(client: MlflowClient, run_id: str, update: RunUpdate) -> list[Row]:
    store = _store(client)
    return [_metric(store, run_id, metric) for metric in dict.fromkeys(update.metrics)]


def _metric(store: Any, run_id: str, metric: Metric) -> Row:
    is_nan, value = store.sanitize_metric_value(metric.value)
    return {
        "key": metric.key,
        "value": value,
        "timestamp": metric.timestamp,
        "step": metric.step,
        "is_nan": is_nan,
        "run_uuid": run_id,
    }


def _latest(rows: Sequence[Row]) -> dict[str, Row]:
    """Returns the last row of each metric, by its key."""
    last: dict[str, Row] = {}
    for row in rows:
        if row["key"] not in last or _age(row) > _age(last[row["key"]]):
            last[row["key"]] = row
    return last


def _age(row: Mapping[str, Any]) -> tuple[int, int, float]:
    """Orders rows as MLflow does to find a metric's latest value."""
    return row["step"], row["timestamp"], row["value"]
