"""What the driver knows of a study while it runs: every trial, and the best one's weights."""

from __future__ import annotations

import time
from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

from mlops.nn.records import NO_MERIT, Outcome, merit
from mlops.tracking.study.logger import failure_reason, is_tried_in_parts, trained
from mlops.tracking.study.record import TrialRecord


@dataclass
class Row:
    """One trial, as the study's table shows it."""

    trial: int
    params: dict[str, Any]
    duplicate_of: int | None = None
    outcome: Outcome | None = None
    reason: str | None = None
    score: float | None = None
    best_epoch: int = 0
    epochs: int = 0
    seconds: float = 0.0
    node: str = ""
    device: str = ""
    metrics: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON values."""
        return {**asdict(self), "outcome": self.outcome.value if self.outcome else None}


class Ledger(Callback):
    """Keeps the table of trials; must come after the callback that records reports.

    It takes the bulk (epoch records, weights) out of each report, so that Tune neither keeps nor
    saves it. `weights` has those of the best trial by its number, as safetensors; of no other.

    What is asked of it again and again is kept up to date as each trial ends: a report takes as
    long after thousands of trials as after the first.

    Args:
        metric: The study's metric.
        max_evals: Trials of the study.
        trials: What is on record of a study that is resumed.
    """

    def __init__(
        self,
        metric: str,
        max_evals: int,
        trials: Mapping[int, TrialRecord] = MappingProxyType({}),
    ) -> None:
        self.metric, self.max_evals = metric, max_evals
        self.rows: dict[int, Row] = {}
        self.best: Row | None = None
        self.weights: dict[int, bytes] = {}
        self.epochs = 0
        self.epochs_of_ended = 0
        self._leaders: list[Row] = []
        self._outcomes: Counter[Outcome] = Counter()
        self._copies: defaultdict[int, list[Row]] = defaultdict(list)
        for number, recorded in sorted(trials.items()):
            if recorded.ended:
                self.add(_row(number, recorded))
        self.ended_before = len(self.rows)
        self._epochs: dict[int, int] = {}
        self.tracking_seconds = 0.0
        self.started = time.monotonic()
        self.training_since: float | None = None

    @property
    def ended(self) -> int:
        """Trials that have ended by themselves."""
        return self._outcomes.total() - self._outcomes[Outcome.INTERRUPTED]

    def add(self, row: Row) -> None:
        """Enters a trial; a duplicate ends with its original, or has ended with it."""
        self.rows[row.trial] = row
        if row.outcome is not None:
            self._count(row)
        elif row.duplicate_of is not None:
            # Packs may start in another order than they were proposed in.
            original = self.rows.get(row.duplicate_of)
            if original is None or original.outcome is None:
                self._copies[row.duplicate_of].append(row)
            else:
                self._copy(original, row)

    def on_trial_start(self, *, trial: Trial, **info: Any) -> None:
        """Enters a pack's trials."""
        self.training_since = self.training_since or time.monotonic()
        for member in trial.config["trials"]:
            number = member["number"]
            if number not in self.rows:
                self.add(Row(number, member["params"], member["duplicate_of"]))

    def on_trial_result(self, *, result: dict[str, Any], **info: Any) -> None:
        """Enters what a report carries."""
        for record in result.pop("records"):
            # A pack that is started again repeats itself.
            if record["epoch"] > self._epochs.get(record["trial"], 0):
                self._epochs[record["trial"]] = record["epoch"]
                self.epochs += 1
        for ended in result.pop("results"):
            self._enter(ended)
        best = result.pop("best", None)
        if best is not None and self.best is self.rows[best["trial"]]:
            self.weights = {best["trial"]: best["weights"]}

    def on_trial_error(self, *, trial: Trial, **info: Any) -> None:
        """Fails the trials of a pack that has died for good, even before it started."""
        self.on_trial_start(trial=trial)
        if is_tried_in_parts(trial.config):
            return
        for number in trained(trial.config):
            if self.rows[number].outcome is None:
                self._end(self.rows[number], Outcome.FAILED, failure_reason(trial))

    def close(self, reason: str = "the study was stopped") -> None:
        """Marks what is still open as interrupted, for a reason."""
        for row in self.rows.values():
            if row.outcome is None:
                self._end(row, Outcome.INTERRUPTED, reason)

    def ordered(self) -> list[Row]:
        """Returns all trials by number."""
        return [self.rows[number] for number in sorted(self.rows)]

    def outcomes(self) -> dict[str, int]:
        """Counts the trials by outcome."""
        return {outcome.value: n for outcome in Outcome if (n := self._outcomes[outcome])}

    def _enter(self, ended: dict[str, Any]) -> None:
        row = self.rows[ended["trial"]]
        if row.outcome is not None:  # of a pack that is trained again for others' sake
            return
        row.score, row.metrics = ended["score"], ended["metrics"]
        row.best_epoch, row.epochs = ended["best_epoch"], ended["epochs"]
        row.seconds, row.node, row.device = ended["seconds"], ended["node"], ended["device"]
        self._end(row, Outcome(ended["outcome"]), ended["reason"])

    def _end(self, row: Row, outcome: Outcome, reason: str | None) -> None:
        row.outcome, row.reason = outcome, reason
        self._count(row)
        for copy in self._copies.pop(row.trial, ()):
            if copy.outcome is None:
                self._copy(row, copy)

    def _copy(self, original: Row, row: Row) -> None:
        row.score, row.metrics = original.score, original.metrics
        row.best_epoch, row.epochs = original.best_epoch, original.epochs
        assert original.outcome is not None
        self._end(row, original.outcome, original.reason)

    def _count(self, row: Row) -> None:
        """Counts a trial that has ended."""
        assert row.outcome is not None
        self._outcomes[row.outcome] += 1
        if row.duplicate_of is None:
            self.epochs_of_ended += row.epochs
            if self._merit(row) < NO_MERIT:
                insort(self._leaders, row, key=self._merit)
                self.best = self._leaders[0]

    def leaders(self, n: int) -> list[Row]:
        """Returns the n best trials so far, duplicates left out."""
        return self._leaders[:n]

    def _merit(self, row: Row) -> tuple[float, ...]:
        """Sorts the better trials first."""
        return merit(self.metric, row.metrics, row.best_epoch, row.trial)


def _row(number: int, trial: TrialRecord) -> Row:
    result = {**(trial.result or {}), "trial": number}
    outcome = Outcome(result.pop("outcome"))
    return Row(params=trial.params, duplicate_of=trial.duplicate_of, outcome=outcome, **result)
