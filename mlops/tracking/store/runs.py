"""A run as MLflow has it, and what it lacks; written and read through MLflow's own client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.entities import Metric
    from mlflow.tracking import MlflowClient

# MLflow refuses larger batches of metrics.
BATCH = 1000


@dataclass(frozen=True)
class RunUpdate:
    """What is to be written of a run; of one that is to be made, all of it.

    Times are in milliseconds since 1970.

    Attributes:
        run_id: None where the run is to be made.
        name: The name that MLflow shows.
        started_ms: When it began.
        params: Names and texts.
        tags: Names and texts.
        metrics: MLflow's.
        status: MLflow's, of a run that ends here; None of one that goes on.
        ended_ms: When it ended.
    """

    run_id: str | None
    name: str
    started_ms: int
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Sequence[Metric]
    status: str | None = None
    ended_ms: int = 0


@dataclass(frozen=True)
class RunOnRecord:
    """What MLflow has of a run."""

    status: str
    ended_ms: int
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Sequence[Metric]


def read_run(client: MlflowClient, run_id: str) -> RunOnRecord:
    """Reads all that MLflow has of a run, every value of its metrics.

    Raises:
        Exception: What the store answers.
    """
    run = client.get_run(run_id)
    points = [
        point for name in run.data.metrics for point in client.get_metric_history(run_id, name)
    ]
    ended_ms = run.info.end_time or 0
    return RunOnRecord(run.info.status, ended_ms, run.data.params, run.data.tags, points)


def create_run(client: MlflowClient, experiment_id: str, update: RunUpdate) -> str:
    """Makes a run with its tags; returns its id.

    Raises:
        Exception: What the store answers; the run may be there all the same.
    """
    run = client.create_run(experiment_id, update.started_ms, dict(update.tags), update.name)
    return str(run.info.run_id)


def fill_run(client: MlflowClient, run_id: str, update: RunUpdate) -> None:
    """Writes params, tags and metrics of a run that is there, in as few requests as MLflow allows.

    Raises:
        Exception: What the store answers; some may be on record all the same.
    """
    from mlflow.entities import Param, RunTag

    params = [Param(name, text) for name, text in update.params.items()]
    tags = [RunTag(name, text) for name, text in update.tags.items()]
    metrics: list[Any] = list(update.metrics)
    while metrics or params or tags:
        client.log_batch(run_id, metrics[:BATCH], params, tags)
        metrics, params, tags = metrics[BATCH:], [], []


def end_run(client: MlflowClient, run_id: str, update: RunUpdate) -> None:
    """Ends a run, if it does end.

    Raises:
        Exception: What the store answers.
    """
    if update.status is not None:
        client.set_terminated(run_id, update.status, update.ended_ms)
