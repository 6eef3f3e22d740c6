"""The run of one trial: what is known of it, and what of that MLflow has not been sent yet."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlops.nn.records import METRIC_NAMES, Outcome
from mlops.tracking.store.batch import BATCH, log_batch
from mlops.tracking.store.whole import WholeRun
from mlops.tracking.study.record import RESULT_TAG, SO_FAR_TAG

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

# Seconds after which a trial under way is shown.
FLUSH_SECONDS = 5.0

STATUS = {
    Outcome.COMPLETED: "FINISHED",
    Outcome.PRUNED: "FINISHED",
    Outcome.FAILED: "FAILED",
    Outcome.INTERRUPTED: "KILLED",
}


@dataclass
class ChildRun:
    """A child run and what has not been sent of it.

    Attributes:
        trial: The trial's number.
        started_ms: When it began; milliseconds since 1970, as all times of MLflow.
        params: Names and texts, not sent yet.
        tags: Names and texts, not sent yet.
        run_id: None until the run is made.
        tried: Whether a try to make the run may have succeeded without our knowing.
        metrics: MLflow's, not sent yet.
        epochs: Those that it was told of.
        recorded: (metric, step) that the run had before; None until it is known.
        unsure: Whether it may have more than we know.
        waiting_since: When something was last sent, by `time.monotonic`.
        status: MLflow's, of a trial that has ended.
        original: The trial that it is a copy of, until it has been filled.
        sent: Whether the store has all of it.
    """

    trial: int
    started_ms: int
    params: dict[str, str]
    tags: dict[str, str]
    run_id: str | None = None
    tried: bool = False
    metrics: list[Any] = field(default_factory=list)
    epochs: set[int] = field(default_factory=set)
    recorded: set[tuple[str, int]] | None = field(default_factory=set)
    unsure: bool = False
    waiting_since: float = field(default_factory=time.monotonic)
    status: str | None = None
    ended_ms: int = 0
    original: int | None = None
    sent: bool = False

    @property
    def name(self) -> str:
        """The name that MLflow shows."""
        return f"trial-{self.trial:04d}"

    def add_epoch(self, record: Mapping[str, Any], now: int) -> None:
        """Adds the values of an epoch, once."""
        from mlflow.entities import Metric

        epoch = record["epoch"]
        if epoch not in self.epochs:
            self.epochs.add(epoch)
            self.metrics += [Metric(name, record[name], now, epoch) for name in METRIC_NAMES]

    def end(self, result: Mapping[str, Any], metrics: Mapping[str, float], now: int) -> None:
        """Notes the trial's end: the fields of a `TrialResult`, and metrics of the whole trial."""
        from mlflow.entities import Metric

        outcome = Outcome(result["outcome"])
        self.tags |= {name: result[name] for name in ("node", "device") if result.get(name)}
        self.metrics += [Metric(name, value, now, 0) for name, value in metrics.items()]
        if outcome is not Outcome.INTERRUPTED:
            self.tags[RESULT_TAG] = json.dumps(result)
        elif result["score"] is not None:
            self.tags[SO_FAR_TAG] = json.dumps(result)
        self._end_as(outcome, result["reason"], now)

    def interrupt(self, reason: str, now: int) -> None:
        """Notes that the trial will not end by itself."""
        self._end_as(Outcome.INTERRUPTED, reason, now)

    def _end_as(self, outcome: Outcome, reason: str | None, now: int) -> None:
        self.tags["outcome"] = outcome.value
        if reason is not None:
            self.tags["reason"] = reason
        self.status, self.ended_ms = STATUS[outcome], now

    @property
    def is_due(self) -> bool:
        """Whether it has ended or has a full batch."""
        return self.status is not None or self.original is not None or len(self.metrics) >= BATCH

    def is_stale(self, now: float) -> bool:
        """Whether it is under way and has not been shown for a while."""
        return not self.is_due and now - self.waiting_since > FLUSH_SECONDS

    def whole(self) -> WholeRun | None:
        """Returns the run as a whole if it has ended before anything of it was sent."""
        if self.status is None or self.run_id or self.tried or self.original is not None:
            return None
        times = (self.started_ms, self.ended_ms)
        run = WholeRun(self.name, *times, self.status, self.params, self.tags, self.metrics)
        return run if run.is_plain else None

    def send(self, client: MlflowClient, experiment_id: str) -> None:
        """Sends what is known, in as few requests as MLflow allows.

        Raises:
            Exception: What the store answers. What it has not confirmed is sent again next time.
        """
        from mlflow.entities import Param, RunTag

        if self.run_id is None:
            self.run_id = self._create(client, experiment_id)
        if self.recorded is None:
            self.recorded = self._open_again(client, self.run_id)
        if self.unsure:
            run = client.get_run(self.run_id)
            self.recorded |= {(metric.key, metric.step) for metric in _history(client, run)}
            self.unsure = False
        if self.recorded:
            self.metrics = [m for m in self.metrics if (m.key, m.step) not in self.recorded]
        while self.metrics or self.params or self.tags:
            batch = self.metrics[:BATCH]
            params = [Param(name, text) for name, text in self.params.items()]
            tags = [RunTag(name, text) for name, text in self.tags.items()]
            try:
                log_batch(client, self.run_id, batch, params, tags)
            except Exception:
                # The answer alone may have been lost, and a file store takes a step twice.
                self.unsure = True
                raise
            del self.metrics[: len(batch)]
            self.params, self.tags = {}, {}
        self.waiting_since = time.monotonic()
        if self.status is not None:
            client.set_terminated(self.run_id, self.status, self.ended_ms)
            self.sent = True

    def fill_from(self, client: MlflowClient, run_id: str) -> None:
        """Takes over metrics, outcome and end of the run that this one is a copy of."""
        run = client.get_run(run_id)
        self.metrics = _history(client, run)
        told = ("outcome", "reason", RESULT_TAG, SO_FAR_TAG)
        self.tags |= {name: run.data.tags[name] for name in told if name in run.data.tags}
        self.status, self.ended_ms = run.info.status, max(run.info.end_time, self.started_ms)
        self.original = None

    def _create(self, client: MlflowClient, experiment_id: str) -> str:
        """Creates the run, unless a try whose answer was lost has done so."""
        if self.tried:
            parent = self.tags["mlflow.parentRunId"]
            query = f"tags.`mlflow.parentRunId` = '{parent}' and tags.trial = '{self.trial}'"
            for run in client.search_runs([experiment_id], query, max_results=1):
                self.recorded = None
                return str(run.info.run_id)
        self.tried = True
        run = client.create_run(experiment_id, self.started_ms, self.tags, self.name)
        self.tags = {}
        return str(run.info.run_id)

    def _open_again(self, client: MlflowClient, run_id: str) -> set[tuple[str, int]]:
        """Makes a run of before one under way, and returns what it has: (metric, step)."""
        run = client.get_run(run_id)
        if run.info.status != "RUNNING":
            client.update_run(run_id, "RUNNING")
        for name in {"outcome", "reason", SO_FAR_TAG} & run.data.tags.keys():
            client.delete_tag(run_id, name)
        return {(metric.key, metric.step) for metric in _history(client, run)}


def _history(client: MlflowClient, run: Any) -> list[Any]:
    names: Iterable[str] = run.data.metrics
    return [point for name in names for point in client.get_metric_history(run.info.run_id, name)]
