"""MLflow's `log_batch`, quicker where the store is an SQL database that this process opens.

MLflow makes an object of SQLAlchemy's mapper for every value, which is half of what a study's
record costs (measured: 1.3 ms of processor time an epoch of five metrics, against 0.7 ms). The rows
here are the same; mlflow is pinned to the minor version whose tables these are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from mlflow.tracking import MlflowClient

# MLflow refuses larger batches.
BATCH = 1000


def log_batch(
    client: MlflowClient,
    run_id: str,
    metrics: Sequence[Metric],
    params: Sequence[Param],
    tags: Sequence[RunTag],
) -> None:
    """Records at most `BATCH` metrics, and params and tags, of a run.

    Raises:
        MlflowException: The store does not take them; some may be on record then.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = client._tracking_client.store
    if metrics and isinstance(store, SqlAlchemyStore):
        try:
            _insert(store, run_id, metrics)
            metrics = ()
        except MlflowException:
            # Some may be on record already, of a try whose answer was lost, or the run may be
            # deleted: MLflow sorts it out.
            pass
    if metrics or params or tags:
        client.log_batch(run_id, list(metrics), list(params), list(tags))


def _insert(store: SqlAlchemyStore, run_id: str, metrics: Sequence[Metric]) -> None:
    from mlflow.entities import LifecycleStage
    from mlflow.exceptions import MlflowException
    from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlMetric, SqlRun
    from sqlalchemy import insert, select

    rows = rows_of(store, run_id, metrics)
    with store.ManagedSessionMaker(read_only=False) as session:
        run = session.get(SqlRun, run_id)
        if run is None or run.lifecycle_stage != LifecycleStage.ACTIVE:
            raise MlflowException(f"run {run_id} must be active")
        session.execute(insert(SqlMetric), rows)
        of_run = select(SqlLatestMetric).where(SqlLatestMetric.run_uuid == run_id)
        known = {entry.key: entry for entry in session.scalars(of_run.with_for_update())}
        for key, row in sorted(latest(rows).items()):
            if key not in known:
                session.add(SqlLatestMetric(**row))
            elif _age(row) > _age(vars(known[key])):
                for name, value in row.items():
                    setattr(known[key], name, value)


def rows_of(store: SqlAlchemyStore, run_id: str, metrics: Sequence[Metric]) -> list[dict[str, Any]]:
    """Returns the rows of a run's metrics."""
    return [_row(store, run_id, metric) for metric in dict.fromkeys(metrics)]


def latest(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Returns the last row of each metric, by its key."""
    last: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["key"] not in last or _age(row) > _age(last[row["key"]]):
            last[row["key"]] = row
    return last


def _row(store: SqlAlchemyStore, run_id: str, metric: Metric) -> dict[str, Any]:
    is_nan, value = store.sanitize_metric_value(metric.value)
    return {
        "key": metric.key,
        "value": value,
        "timestamp": metric.timestamp,
        "step": metric.step,
        "is_nan": is_nan,
        "run_uuid": run_id,
    }


def _age(row: dict[str, Any]) -> tuple[int, int, float]:
    """Orders rows as MLflow does to find a metric's latest value."""
    return row["step"], row["timestamp"], row["value"]
