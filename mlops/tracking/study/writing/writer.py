"""One background thread that writes a study's child runs to MLflow in batches.

What it is told is a call: a name and JSON values, kept in the study's spool until all is sent.
"""

from __future__ import annotations

import heapq
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from mlops.errors import RecordError, TrackingError
from mlops.tracking.store.store import PATIENCE_SECONDS, RETRY_SECONDS
from mlops.tracking.study.record import TrialRecord
from mlops.tracking.study.spool import Call, Spool
from mlops.tracking.study.storage import WEIGHTS_FOLDER, weights_name
from mlops.tracking.study.writing.child_run import ChildRun
from mlops.tracking.study.writing.sender import Sender

if TYPE_CHECKING:
    from mlops.tracking.study.study_run import StudyRun

# Seconds from one look at what is to be sent to the next, for each trial that is looked at.
LOOK_SECONDS = 0.0005
# Trials under way that are shown at a look: each takes some ten milliseconds of a server, three of
# an SQL database.
SHOWN_AT_A_LOOK = 20


class RunWriter:
    """Writes child runs in the background, so that a slow store does not slow the caller.

    Every method returns at once; calls are carried out in order by one thread. What a store
    refuses is kept and tried again. A trial costs a server three requests: its run, a batch with
    everything known of it, its end; an SQL database takes many trials at a time.

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
        self._children: dict[int, ChildRun] = {}
        self._run_ids = {n: trial.run_id for n, trial in trials.items() if trial.run_id}
        self._sender = Sender(self._run_ids, resumed=bool(trials))
        self._sent = {number for number, trial in trials.items() if trial.sent}
        self._files: list[str] = []
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        for call in unsent:
            self._calls.put(call)
        self._error: Exception | None = None
        self._fault: Exception | None = None
        self._retry_at = 0.0
        self._flushed_at = 0.0
        self._seconds = 0.0
        self._thread = threading.Thread(target=self._work, name="mlflow-writer", daemon=True)
        self._thread.start()

    @property
    def seconds(self) -> float:
        """Processor time spent on requests."""
        return self._seconds + self._sender.seconds

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
            since = time.monotonic() - self._flushed_at
            idle = self._calls.empty() and since > LOOK_SECONDS * len(self._children)
            if idle or since > RETRY_SECONDS:
                # What is queued is carried out first, so that more can be sent together.
                self._flush()
        self._interrupt_rest()
        give_up = time.monotonic() + PATIENCE_SECONDS
        while not self._flush(everything=True) and time.monotonic() < give_up:
            if isinstance(self._error, RecordError):  # the study is another driver's
                break
            time.sleep(RETRY_SECONDS)

    def _interrupt_rest(self) -> None:
        """Ends the runs of an earlier driver that this one has not come to."""
        now = _now_ms()
        for trial, record in self._trials.items():
            if record.status == "RUNNING":
                self._start(trial, record.params, {}, now)
        for child in self._children.values():
            if child.status is None and child.original is None:
                child.interrupt("its driver died", now)

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
        child = ChildRun(trial, now, texts, trial_tags, self._run_ids.get(trial))
        child.unsure = child.run_id is not None  # what an earlier driver has sent
        self._children[trial] = child

    def _record(self, records: Sequence[Mapping[str, Any]], now: int) -> None:
        for record in records:
            if record["trial"] not in self._sent:
                self._children[record["trial"]].add_epoch(record, now)

    def _file(self, path: str) -> None:
        self._files.append(path)

    def _end(
        self, trial: int, result: Mapping[str, Any], metrics: Mapping[str, float], now: int
    ) -> None:
        if trial not in self._sent and self._children[trial].status is None:
            self._children[trial].end(result, metrics, now)

    def _copy(self, trial: int, original: int) -> None:
        if trial in self._sent:
            return
        child, source = self._children[trial], self._children.get(original)
        if source is not None and source.is_all_here:
            assert source.status is not None
            child.fill(source.metrics, source.tags, source.status, source.ended_ms)
        else:  # the store has it, or will have it
            child.original = original

    def _flush(self, everything: bool = False) -> bool:
        """Sends what is due; returns False, and notes why, if the store does not take it."""
        now, started = time.monotonic(), time.thread_time()
        self._flushed_at = now
        if self._error is not None and now < self._retry_at:
            return False
        try:
            self._parent.result().hold()
            # Before a run says that its trial is the best.
            while self._files:
                self._send_file(self._files[0])
                del self._files[0]
            children = self._children.values()
            due = [child for child in children if everything or child.is_due]
            if not everything:
                stale = (child for child in children if child.is_stale(now))
                due += heapq.nsmallest(SHOWN_AT_A_LOOK, stale, key=lambda c: c.waiting_since)
            refused = self._send([child for child in due if child.original is None])
            # What copies copy must have been sent.
            copies = [child for child in due if child.original is not None]
            refused |= self._send(
                [child for child in copies if child.original not in self._children]
            )
            if refused:
                raise next(iter(refused.values()))
        except Exception as error:
            # From now, not from the start of a try that may have lasted: calls come in between.
            self._error, self._retry_at = error, time.monotonic() + RETRY_SECONDS
            return False
        finally:
            self._seconds += time.thread_time() - started
        self._error = None
        return True

    def _send_file(self, path: str) -> None:
        parent = self._parent.result()
        if Path(path).exists():
            parent.store.client.log_artifact(parent.run_id, path, WEIGHTS_FOLDER)

    def _send(self, children: Sequence[ChildRun]) -> dict[int, Exception]:
        """Sends children until one is refused; returns why, by trial."""
        refused = self._sender.send(self._parent.result().store, children)
        for child in children:
            if child.sent:
                self._sent.add(child.trial)
                del self._children[child.trial]
        for trial in refused:
            # It may be this run that is refused, not the store that is down: others first.
            self._children[trial] = self._children.pop(trial)
        return refused


_CARRY_OUT: dict[str, Callable[..., None]] = {
    "start": RunWriter._start,
    "record": RunWriter._record,
    "file": RunWriter._file,
    "end": RunWriter._end,
    "copy": RunWriter._copy,
}


def _trials(number: int) -> str:
    return "1 trial is" if number == 1 else f"{number} trials are"


def _now_ms() -> int:
    return int(time.time() * 1000)
