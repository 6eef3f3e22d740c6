"""The run of one trial: what is known of it, and what of that MLflow does not have yet."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlops.nn.records import METRIC_NAMES, Outcome
from mlops.tracking.store.runs import BATCH, RunOnRecord, RunUpdate
from mlops.tracking.study.record import RESULT_TAG, SO_FAR_TAG

# Seconds after which a trial under way is shown.
FLUSH_SECONDS = 5.0

STATUS = {
    Outcome.COMPLETED: "FINISHED",
    Outcome.PRUNED: "FINISHED",
    Outcome.FAILED: "FAILED",
    Outcome.INTERRUPTED: "KILLED",
}
# How a trial has ended; a copy has it of its original.
_END_TAGS = ("outcome", "reason", RESULT_TAG, SO_FAR_TAG)
# Those that a trial which goes on takes back.
_PASSING_TAGS = ("outcome", "reason", SO_FAR_TAG)


@dataclass
class ChildRun:
    """A child run and what the store does not have of it.

    Attributes:
        trial: The trial's number.
        started_ms: When it began; milliseconds since 1970, as all times of MLflow.
        params: Names and texts.
        tags: Names and texts.
        run_id: None until the run is made.
        unsure: Whether the store may have more than we know: it is looked at before it is sent to.
        metrics: MLflow's, not sent yet.
        epochs: Those that it was told of.
        recorded: (metric, step) that the run had before.
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
    unsure: bool = False
    metrics: list[Any] = field(default_factory=list)
    epochs: set[int] = field(default_factory=set)
    recorded: set[tuple[str, int]] = field(default_factory=set)
    waiting_since: float = field(default_factory=time.monotonic)
    status: str | None = None
    ended_ms: int = 0
    original: int | None = None
    sent: bool = False
    # What the store has.
    _params: dict[str, str] = field(default_factory=dict)
    _tags: dict[str, str] = field(default_factory=dict)

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

    def fill(
        self, metrics: Sequence[Any], tags: Mapping[str, str], status: str, ended_ms: int
    ) -> None:
        """Takes over metrics, outcome and end of the trial that this one is a copy of."""
        self.metrics = list(metrics)
        self.tags |= {name: tags[name] for name in _END_TAGS if name in tags}
        self.status, self.ended_ms = status, max(ended_ms, self.started_ms)
        self.original = None

    @property
    def is_all_here(self) -> bool:
        """Whether it has ended and nothing of it was sent."""
        return self.status is not None and not (self.run_id or self.unsure)

    @property
    def is_sure(self) -> bool:
        """Whether what is to be sent is known without asking the store."""
        return self.original is None and not self.unsure

    @property
    def is_due(self) -> bool:
        """Whether it has ended or has a full batch."""
        return self.status is not None or self.original is not None or len(self.metrics) >= BATCH

    def is_stale(self, now: float) -> bool:
        """Whether it is under way and has not been shown for a while."""
        return not self.is_due and now - self.waiting_since > FLUSH_SECONDS

    def compare(self, found: RunOnRecord) -> list[str]:
        """Notes what the store has; returns the tags there that are true no more."""
        self.recorded |= {(metric.key, metric.step) for metric in found.metrics}
        self._params, self._tags = dict(found.params), dict(found.tags)
        return [name for name in _PASSING_TAGS if name in found.tags and name not in self.tags]

    def note_made(self, run_id: str) -> None:
        """Notes that the run has been made, with its tags."""
        self.run_id, self._tags = run_id, dict(self.tags)

    def update(self) -> RunUpdate:
        """Returns what the store does not have."""
        return RunUpdate(
            self.run_id,
            self.name,
            self.started_ms,
            _besides(self.params, self._params),
            _besides(self.tags, self._tags),
            [metric for metric in self.metrics if (metric.key, metric.step) not in self.recorded],
            self.status,
            self.ended_ms,
        )

    def note_sent(self, run_id: str) -> None:
        """Notes that the store has all that is known."""
        self.run_id, self.unsure, self.waiting_since = run_id, False, time.monotonic()
        self._params, self._tags = dict(self.params), dict(self.tags)
        self.metrics, self.sent = [], self.status is not None


def _besides(texts: Mapping[str, str], known: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in texts.items() if known.get(name) != text}
