"""One background thread that writes a study's child runs to MLflow in batches."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlops.errors import TrackingError
from mlops.nn.records import METRIC_NAMES, Outcome
from mlops.tracking.batch import BATCH, log_batch
from mlops.tracking.whole import WholeRun, record_whole, takes_whole_runs

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

    from mlops.tracking.study_run import StudyRun

# Seconds after which a trial under way is shown, and after which a failed write is tried again.
FLUSH_SECONDS = 5.0
RETRY_SECONDS = 1.0
# Metrics, params and tags in a transaction: it keeps other writers of an SQLite store waiting.
MOST_VALUES = 10_000
# Seconds that `close` goes on trying when the store does not answer.
CLOSE_SECONDS = 30.0

STATUS = {
    Outcome.COMPLETED: "FINISHED",
    Outcome.PRUNED: "FINISHED",
    Outcome.FAILED: "FAILED",
    Outcome.INTERRUPTED: "KILLED",
}


@dataclass
class _Child:
    """A child run and what has not been sent of it."""

    name: str
    started_ms: int
    params: dict[str, str]
    tags: dict[str, str]
    run_id: str | None = None
    metrics: list[Any] = field(default_factory=list)
    waiting_since: float = field(default_factory=time.monotonic)
    status: str | None = None
    ended_ms: int = 0
    original: int | None = None
    tried: bool = False

    def is_due(self, now: float) -> bool:
        """Whether it has ended, has a full batch, or has not been shown for a while."""
        return (
            self.status is not None
            or self.original is not None
            or len(self.metrics) >= BATCH
            or now - self.waiting_since > FLUSH_SECONDS
        )

    def whole(self) -> WholeRun | None:
        """Returns the run as a whole if it has ended before anything of it was sent."""
        if self.status is None or self.tried or self.original is not None:
            return None
        run = WholeRun(
            self.name,
            self.started_ms,
            self.ended_ms,
            self.status,
            self.params,
            self.tags,
            self.metrics,
        )
        return run if run.is_plain else None


class RunWriter:
    """Writes child runs in the background, so that a slow store does not slow the caller.

    Every method returns at once; calls are carried out in order by one thread. What a store
    refuses is kept and tried again. A trial costs three requests: its run, a batch with everything
    known of it, its end. `seconds` counts the processor time spent on requests.

    Args:
        parent: The study's run, which may be still in the making.
        tags: Tags of every child run.
    """

    def __init__(self, parent: Future[StudyRun], tags: Mapping[str, str]) -> None:
        self._parent = parent
        self._tags = dict(tags)
        self._children: dict[int, _Child] = {}
        self._run_ids: dict[int, str] = {}
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._error: Exception | None = None
        self._fault: Exception | None = None
        self._retry_at = 0.0
        self._flushed_at = 0.0
        self.seconds = 0.0
        self._thread = threading.Thread(target=self._work, name="mlflow-writer", daemon=True)
        self._thread.start()

    def start(self, trial: int, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Opens a trial's run."""
        now = _now_ms()
        self._calls.put(lambda: self._start(trial, params, tags, now))

    def record(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Adds epochs, of any trials: `EpochRecord` fields."""
        now = _now_ms()
        self._calls.put(lambda: self._record(records, now))

    def end(
        self,
        trial: int,
        outcome: Outcome,
        reason: str | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Ends a trial's run, with metrics of the trial as a whole."""
        now = _now_ms()
        self._calls.put(lambda: self._end(trial, outcome, reason, metrics or {}, now))

    def copy(self, trial: int, original: int) -> None:
        """Gives a trial the metrics, outcome and end of `original`, which has ended."""
        self._calls.put(lambda: self._copy(trial, original))

    def check(self) -> None:
        """Raises why there is no study's run, if it could not be made."""
        if self._parent.done():
            self._parent.result()

    def close(self) -> None:
        """Sends what is left and returns when it is written.

        Raises:
            TrackingError: If the store does not take it.
        """
        self._calls.put(None)
        self._thread.join()
        store = self._parent.result().store
        if self._error is not None:
            raise TrackingError(
                f"the MLflow store must accept the record, got from {store.display_uri}: "
                f"{self._error}; {_trials(len(self._children))} not fully recorded"
            ) from self._error
        if self._fault is not None:
            raise self._fault

    def _work(self) -> None:
        if self._parent.exception() is not None:
            return
        self._tags["mlflow.parentRunId"] = self._parent.result().run_id
        while (call := self._next()) is not None:
            try:
                call()
            except Exception as error:  # ours, or the caller's: the rest is written all the same
                self._fault = self._fault or error
            if self._calls.empty() or time.monotonic() - self._flushed_at > RETRY_SECONDS:
                # What is queued is carried out first, so that more can be sent together.
                self._flush()
        give_up = time.monotonic() + CLOSE_SECONDS
        while not self._flush(everything=True) and time.monotonic() < give_up:
            time.sleep(RETRY_SECONDS)

    def _next(self) -> Callable[[], None] | None:
        """Waits for the next call, sending what comes due meanwhile; None at the end."""
        while True:
            try:
                return self._calls.get(timeout=RETRY_SECONDS)
            except queue.Empty:
                self._flush()

    def _start(
        self, trial: int, params: Mapping[str, Any], tags: Mapping[str, str], now: int
    ) -> None:
        texts = {name: str(value) for name, value in params.items()}
        trial_tags = {**self._tags, **tags, "trial": str(trial)}
        self._children[trial] = _Child(f"trial-{trial:04d}", now, texts, trial_tags)

    def _record(self, records: Sequence[Mapping[str, Any]], now: int) -> None:
        from mlflow.entities import Metric

        for record in records:
            child = self._children[record["trial"]]
            child.metrics += [
                Metric(name, record[name], now, record["epoch"]) for name in METRIC_NAMES
            ]

    def _end(
        self,
        trial: int,
        outcome: Outcome,
        reason: str | None,
        metrics: Mapping[str, float],
        now: int,
    ) -> None:
        from mlflow.entities import Metric

        child = self._children[trial]
        child.metrics += [Metric(name, value, now, 0) for name, value in metrics.items()]
        child.tags["outcome"] = outcome.value
        if reason is not None:
            child.tags["reason"] = reason
        child.status, child.ended_ms = STATUS[outcome], now

    def _copy(self, trial: int, original: int) -> None:
        self._children[trial].original = original

    def _flush(self, everything: bool = False) -> bool:
        """Sends what is due; returns False, and notes why, if the store does not take it."""
        now, started = time.monotonic(), time.thread_time()
        self._flushed_at = now
        if self._error is not None and now < self._retry_at:
            return False
        try:
            self._send_whole()
            # Copies last: what they copy must have been sent.
            children = sorted(self._children.items(), key=lambda item: item[1].original is not None)
            for trial, child in children:
                if child.original not in self._children and (everything or child.is_due(now)):
                    self._try(trial, child)
        except Exception as error:
            # From now, not from the start of a try that may have lasted: calls come in between.
            self._error, self._retry_at = error, time.monotonic() + RETRY_SECONDS
            return False
        finally:
            self.seconds += time.thread_time() - started
        self._error = None
        return True

    def _send_whole(self) -> None:
        """Sends together what can be recorded at once: by itself a child costs 30 times as much."""
        whole = {trial: run for trial, child in self._children.items() if (run := child.whole())}
        if not whole or not takes_whole_runs(self._client):
            return
        experiment = self._parent.result().store.experiment_id
        while whole:
            part = _part_of(whole)
            for trial in part:
                # If this fails, the answer alone may have been lost.
                self._children[trial].tried = True
            ids = record_whole(self._client, experiment, list(part.values()))
            for trial, run_id in zip(part, ids, strict=True):
                self._run_ids[trial] = run_id
                del self._children[trial], whole[trial]

    def _try(self, trial: int, child: _Child) -> None:
        try:
            self._send(trial, child)
        except Exception:
            # It may be this run that is refused, not the store that is down: others first.
            self._children[trial] = self._children.pop(trial)
            raise

    def _send(self, trial: int, child: _Child) -> None:
        from mlflow.entities import Param, RunTag

        client = self._client
        if child.original is not None:
            self._fill_from(child, self._run_ids[child.original])
        if child.run_id is None:
            child.run_id = self._run_ids[trial] = self._create(child)
        while child.metrics or child.params or child.tags:
            batch = child.metrics[:BATCH]
            params = [Param(name, text) for name, text in child.params.items()]
            tags = [RunTag(name, text) for name, text in child.tags.items()]
            log_batch(client, child.run_id, batch, params, tags)
            del child.metrics[: len(batch)]
            child.params, child.tags = {}, {}
        child.waiting_since = time.monotonic()
        if child.status is not None:
            client.set_terminated(child.run_id, child.status, child.ended_ms)
            del self._children[trial]

    @property
    def _client(self) -> MlflowClient:
        return self._parent.result().store.client

    def _create(self, child: _Child) -> str:
        """Creates a run, unless a try whose answer was lost has done so."""
        client, experiment = self._client, self._parent.result().store.experiment_id
        if child.tried:
            parent, trial = child.tags["mlflow.parentRunId"], child.tags["trial"]
            query = f"tags.`mlflow.parentRunId` = '{parent}' and tags.trial = '{trial}'"
            for run in client.search_runs([experiment], query, max_results=1):
                return str(run.info.run_id)
        child.tried = True
        run = client.create_run(experiment, child.started_ms, child.tags, child.name)
        child.tags = {}
        return str(run.info.run_id)

    def _fill_from(self, child: _Child, run_id: str) -> None:
        client = self._client
        run = client.get_run(run_id)
        histories = [client.get_metric_history(run_id, name) for name in run.data.metrics]
        child.metrics = [metric for history in histories for metric in history]
        child.tags |= {k: run.data.tags[k] for k in ("outcome", "reason") if k in run.data.tags}
        child.status, child.ended_ms = run.info.status, max(run.info.end_time, child.started_ms)
        child.original = None


def _part_of(runs: Mapping[int, WholeRun]) -> dict[int, WholeRun]:
    """Returns as many of the first runs as make a transaction of moderate length, at least one."""
    part: dict[int, WholeRun] = {}
    values = 0
    for trial, run in runs.items():
        values += len(run.metrics) + len(run.params) + len(run.tags)
        if part and values > MOST_VALUES:
            break
        part[trial] = run
    return part


def _trials(number: int) -> str:
    return "1 trial is" if number == 1 else f"{number} trials are"


def _now_ms() -> int:
    return int(time.time() * 1000)
