"""Runs that have ended, recorded whole and many at a time, where the store is an SQL database.

MLflow takes several transactions and some thirty queries to create a run, to fill and to end it.
A study of thousands of short trials would spend most of its time on them. The rows here are the
same; mlflow is pinned to the minor version whose tables these are.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlops.tracking.store.batch import latest, rows_of

if TYPE_CHECKING:
    from mlflow.entities import Metric
    from mlflow.tracking import MlflowClient

# Longer names and values are left to MLflow, which cuts or refuses them.
LONGEST_NAME = 250
LONGEST_VALUE = 5000


@dataclass(frozen=True)
class WholeRun:
    """All there is to record of a run that has ended; times in milliseconds since 1970."""

    name: str
    started_ms: int
    ended_ms: int
    status: str
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Sequence[Metric]

    @property
    def is_plain(self) -> bool:
        """Whether MLflow would record it as it is."""
        names = [*self.params, *self.tags, self.name]
        values = [*self.params.values(), *self.tags.values()]
        return all(len(name) <= LONGEST_NAME for name in names) and all(
            len(value) <= LONGEST_VALUE for value in values
        )


def takes_whole_runs(client: MlflowClient) -> bool:
    """Whether the store is an SQL database that this process opens."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    return isinstance(client._tracking_client.store, SqlAlchemyStore)


def record_whole(client: MlflowClient, experiment_id: str, runs: Sequence[WholeRun]) -> list[str]:
    """Records runs in one transaction: all of them or, when it fails, none.

    Args:
        client: A client whose store takes whole runs.
        experiment_id: Their experiment.
        runs: Plain runs.

    Returns:
        Their ids.

    Raises:
        MlflowException: The store does not take them.
    """
    from mlflow.store.tracking.dbmodels import models
    from sqlalchemy import insert

    store = client._tracking_client.store
    experiment = store.get_experiment(experiment_id)
    store._check_experiment_is_active(experiment)
    ids = [uuid.uuid4().hex for _ in runs]
    tables: dict[Any, list[dict[str, Any]]] = {
        models.SqlRun: [],
        models.SqlTag: [],
        models.SqlParam: [],
        models.SqlMetric: [],
        models.SqlLatestMetric: [],
    }
    for run_id, run in zip(ids, runs, strict=True):
        tags = {"mlflow.runName": run.name, **run.tags}
        metrics = rows_of(store, run_id, run.metrics)
        tables[models.SqlRun].append(_row(run, run_id, experiment))
        tables[models.SqlTag] += _pairs(tags, run_id)
        tables[models.SqlParam] += _pairs(run.params, run_id)
        tables[models.SqlMetric] += metrics
        tables[models.SqlLatestMetric] += latest(metrics).values()
    with store.ManagedSessionMaker(read_only=False) as session:
        for table, rows in tables.items():
            if rows:
                session.execute(insert(table.__table__), rows)
    return ids


def _row(run: WholeRun, run_id: str, experiment: Any) -> dict[str, Any]:
    from mlflow.entities import LifecycleStage
    from mlflow.utils.uri import append_to_uri_path

    return {
        "run_uuid": run_id,
        "name": run.name,
        "artifact_uri": append_to_uri_path(experiment.artifact_location, run_id, "artifacts"),
        "experiment_id": int(experiment.experiment_id),
        "source_type": "UNKNOWN",
        "source_name": "",
        "entry_point_name": "",
        "source_version": "",
        "user_id": run.tags.get("mlflow.user", "unknown"),
        "status": run.status,
        "start_time": run.started_ms,
        "end_time": run.ended_ms,
        "deleted_time": None,
        "lifecycle_stage": LifecycleStage.ACTIVE,
    }


def _pairs(texts: Mapping[str, str], run_id: str) -> list[dict[str, Any]]:
    return [{"key": key, "value": text, "run_uuid": run_id} for key, text in texts.items()]
