"""One background thread that writes a study's child runs to MLflow in batches.

What it is told is a call: a name and JSON values, kept in the study's spool until all is sent.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from mlops.errors import TrackingError
from mlops.nn.records import METRIC_NAMES, Outcome
from mlops.tracking.batch import BATCH, log_batch
from mlops.tracking.record import RESULT_TAG, TrialRecord
from mlops.tracking.spool import Call, Spool

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

    from mlops.tracking.study_run import StudyRun

# Seconds after which a trial under way is shown, and after which a failed write is tried again.
FLUSH_SECONDS = 5.0
RETRY_SECONDS = 1.0
# Seconds that `close` goes on trying when the store does not answer.
CLOSE_SECONDS = 30.0
# Where the study's run has the weights of trials that were the best when they ended.
WEIGHTS_FOLDER = "best"

STATUS = {
    Outcome.COMPLETED: "FINISHED",
    Outcome.PRUNED: "FINISHED",
    Outcome.FAILED: "FAILED",
    Outcome.INTERRUPTED: "KILLED",
}


@dataclass
class _Child:
    """A child run and what has not been sent of it.

    Attributes:
        epochs: Those that it was told of.
        recorded: (metric, step) that its run had when the study was resumed; None until it is
            known.
    """

    name: str
    started_ms: int
    params: dict[str, str]
    tags: dict[str, str]
    run_id: str | None = None
    metrics: list[Any] = field(default_factory=list)
    epochs: set[int] = field(default_factory=set)
    recorded: set[tuple[str, int]] | None = field(default_factory=set)
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


class RunWriter:
    """Writes child runs in the background, so that a slow store does not slow the caller.

    Every method returns at once; calls are carried out in order by one thread. What a store
    refuses is kept and tried again. A trial costs three requests: its run, a batch with everything
    known of it, its end. `seconds` counts the processor time spent on requests.

    A study that is resumed goes on in the runs it has: one that says all of its trial is left as it
    is, another is opened again, and what it has already is not recorded twice.

    Args:
        parent: The study's run, which may be still in the making.
        tags: Tags of every child run.
        spool: Where calls are kept until they are sent.
        trials: What is on record.
        unsent: Calls of a driver that died, to be carried out first.
    """

    def __init__(
        self,
        parent: Future[StudyRun],
        tags: Mapping[str, str],
        spool: Spool | None = None,
        trials: Mapping[int, TrialRecord] = MappingProxyType({}),
        unsent: Iterable[Call] = (),
    ) -> None:
        self._parent = parent
        self._tags = dict(tags)
        self._spool = spool
        self._trials = trials
        self._children: dict[int, _Child] = {}
        self._run_ids = {n: trial.run_id for n, trial in trials.items() if trial.run_id}
        self._sent = {number for number, trial in trials.items() if trial.sent}
        self._files: list[str] = []
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        for call in unsent:
            self._calls.put(call)
        self._error: Exception | None = None
        self._fault: Exception | None = None
        self._retry_at = 0.0
        self.seconds = 0.0
        self._thread = threading.Thread(target=self._work, name="mlflow-writer", daemon=True)
        self._thread.start()

    def start(self, trial: int, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Opens a trial's run."""
        self._put("start", trial, dict(params), dict(tags), _now_ms())

    def record(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Adds epochs, of any trials: `EpochRecord` fields."""
        self._put("record", [dict(record) for record in records], _now_ms())

    def keep_weights(self, trial: int, weights: bytes) -> None:
        """Keeps the weights of a trial that is the best so far, as safetensors."""
        if self._spool is not None:
            path = self._spool.keep(weights_name(trial), weights)
            if path is not None:
                self._put("file", str(path))

    def end(self, trial: int, result: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Ends a trial's run.

        Args:
            trial: The trial's number.
            result: The fields of a `TrialResult`, without weights.
            metrics: Of the trial as a whole.
        """
        self._put("end", trial, dict(result), dict(metrics), _now_ms())

    def copy(self, trial: int, original: int) -> None:
        """Gives a trial the metrics, outcome and end of `original`, which has ended."""
        self._put("copy", trial, original)

    def _put(self, *call: Any) -> None:
        if self._spool is not None:
            self._spool.add(list(call))
        self._calls.put(list(call))

    def check(self) -> None:
        """Raises why there is no study's run, if it could not be made."""
        if self._parent.done():
            self._parent.result().check()

    def close(self) -> None:
        """Sends what is left and returns when it is written.

        Raises:
            TrackingError: If the store does not take it.
        """
        self._calls.put(None)
        self._thread.join()
        store = self._parent.result().store
        if self._error is not None:
            kept = f"; {self._spool.folder} keeps what is missing" if self._spool else ""
            raise TrackingError(
                f"the MLflow store must accept the record, got from {store.display_uri}: "
                f"{self._error}; {_trials(len(self._children))} not fully recorded{kept}"
            ) from self._error
        if self._fault is not None:
            raise self._fault

    def _work(self) -> None:
        if self._parent.exception() is not None:
            return
        self._tags["mlflow.parentRunId"] = self._parent.result().run_id
        while (call := self._next()) is not None:
            try:
                kind, *values = call
                _CARRY_OUT[kind](self, *values)
            except Exception as error:  # ours, or the caller's: the rest is written all the same
                self._fault = self._fault or error
            self._flush()
        self._interrupt_rest()
        give_up = time.monotonic() + CLOSE_SECONDS
        while not self._flush(everything=True) and time.monotonic() < give_up:
            time.sleep(RETRY_SECONDS)

    def _interrupt_rest(self) -> None:
        """Ends the runs of an earlier driver that this one has not come to."""
        now = _now_ms()
        for trial, record in self._trials.items():
            if record.status == "RUNNING":
                self._start(trial, record.params, {}, now)
        for child in self._children.values():
            if child.status is None and child.original is None:
                child.tags |= {"outcome": Outcome.INTERRUPTED.value, "reason": "its driver died"}
                child.status, child.ended_ms = STATUS[Outcome.INTERRUPTED], now

    def _next(self) -> Call | None:
        """Waits for the next call, sending what comes due meanwhile; None at the end."""
        while True:
            try:
                return self._calls.get(timeout=RETRY_SECONDS)
            except queue.Empty:
                self._flush()

    def _start(
        self, trial: int, params: Mapping[str, Any], tags: Mapping[str, str], now: int
    ) -> None:
        if trial in self._sent or trial in self._children:
            return
        texts = {name: str(value) for name, value in params.items()}
        trial_tags = {**self._tags, **tags, "trial": str(trial)}
        child = _Child(f"trial-{trial:04d}", now, texts, trial_tags)
        if trial in self._run_ids:
            child.run_id, child.recorded = self._run_ids[trial], None
        # A driver that died may have made a run that it did not hear of.
        child.tried = bool(self._trials)
        self._children[trial] = child

    def _record(self, records: Sequence[Mapping[str, Any]], now: int) -> None:
        from mlflow.entities import Metric

        for record in records:
            child, epoch = self._children.get(record["trial"]), record["epoch"]
            if child is None and record["trial"] in self._sent:
                continue
            child = self._children[record["trial"]]
            if epoch not in child.epochs:
                child.epochs.add(epoch)
                child.metrics += [Metric(name, record[name], now, epoch) for name in METRIC_NAMES]

    def _file(self, path: str) -> None:
        self._files.append(path)

    def _end(
        self, trial: int, result: Mapping[str, Any], metrics: Mapping[str, float], now: int
    ) -> None:
        from mlflow.entities import Metric

        if trial in self._sent:
            return
        child, outcome = self._children[trial], Outcome(result["outcome"])
        if child.status is not None:
            return
        child.metrics += [Metric(name, value, now, 0) for name, value in metrics.items()]
        child.tags["outcome"] = outcome.value
        if result["reason"] is not None:
            child.tags["reason"] = result["reason"]
        if outcome is not Outcome.INTERRUPTED:
            child.tags[RESULT_TAG] = json.dumps(result)
        child.status, child.ended_ms = STATUS[outcome], now

    def _copy(self, trial: int, original: int) -> None:
        if trial not in self._sent:
            self._children[trial].original = original

    def _flush(self, everything: bool = False) -> bool:
        """Sends what is due; returns False, and notes why, if the store does not take it."""
        now, started = time.monotonic(), time.thread_time()
        if self._error is not None and now < self._retry_at:
            return False
        try:
            # Before a run says that its trial is the best.
            while self._files:
                self._send_file(self._files[0])
                del self._files[0]
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

    def _try(self, trial: int, child: _Child) -> None:
        try:
            self._send(trial, child)
        except Exception:
            # It may be this run that is refused, not the store that is down: others first.
            self._children[trial] = self._children.pop(trial)
            raise

    def _send_file(self, path: str) -> None:
        if Path(path).exists():
            self._client.log_artifact(self._parent.result().run_id, path, WEIGHTS_FOLDER)

    def _send(self, trial: int, child: _Child) -> None:
        from mlflow.entities import Param, RunTag

        client = self._client
        if child.original is not None:
            self._fill_from(child, self._run_ids[child.original])
        if child.run_id is None:
            child.run_id = self._run_ids[trial] = self._create(child)
        if child.recorded is None:
            child.recorded = self._open_again(child.run_id)
        if child.recorded:
            new = [m for m in child.metrics if (m.key, m.step) not in child.recorded]
            child.metrics = new
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
            self._sent.add(trial)

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
                child.recorded = None
                return str(run.info.run_id)
        child.tried = True
        run = client.create_run(experiment, child.started_ms, child.tags, child.name)
        child.tags = {}
        return str(run.info.run_id)

    def _open_again(self, run_id: str) -> set[tuple[str, int]]:
        """Makes a run of before one under way, and returns what it has: (metric, step)."""
        client = self._client
        run = client.get_run(run_id)
        if run.info.status != "RUNNING":
            client.update_run(run_id, "RUNNING")
        for name in {"outcome", "reason"} & run.data.tags.keys():
            client.delete_tag(run_id, name)
        histories = [client.get_metric_history(run_id, name) for name in run.data.metrics]
        return {(metric.key, metric.step) for history in histories for metric in history}

    def _fill_from(self, child: _Child, run_id: str) -> None:
        client = self._client
        run = client.get_run(run_id)
        histories = [client.get_metric_history(run_id, name) for name in run.data.metrics]
        child.metrics = [metric for history in histories for metric in history]
        told = ("outcome", "reason", RESULT_TAG)
        child.tags |= {name: run.data.tags[name] for name in told if name in run.data.tags}
        child.status, child.ended_ms = run.info.status, max(run.info.end_time, child.started_ms)
        child.original = None


_CARRY_OUT: dict[str, Callable[..., None]] = {
    "start": RunWriter._start,
    "record": RunWriter._record,
    "file": RunWriter._file,
    "end": RunWriter._end,
    "copy": RunWriter._copy,
}


def weights_name(trial: int) -> str:
    """Names the file of a trial's weights."""
    return f"trial-{trial:04d}.safetensors"


def _trials(number: int) -> str:
    return "1 trial is" if number == 1 else f"{number} trials are"


def _now_ms() -> int:
    return int(time.time() * 1000)
