"""Ray Tune's MLflow callback, taught that a Tune trial is a pack of ours."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.experiment import Trial

from mlops.nn.records import NO_MERIT, Outcome, TrialResult, merit
from mlops.tracking.study.record import TrialRecord
from mlops.tracking.study.spool import Call, Spool
from mlops.tracking.study.writing.writer import RunWriter

if TYPE_CHECKING:
    from mlops.tracking.study.study_run import StudyRun


class StudyLogger(MLflowLoggerCallback):
    """Records every trial of every pack as a child run of the study's run.

    Tune's loop is never blocked: the callback queues, `RunWriter`'s thread sends. A pack that Tune
    starts again after a crash goes on in the same runs: an epoch is recorded once, since a trial
    repeats exactly.

    Args:
        parent: The study's run, which may be still in the making.
        study: The study's name.
        metric: The study's metric, recorded once more at each trial's best.
        spool: Where the record is kept until it is sent.
        trials: What is on record of a study that is resumed.
        unsent: What its last driver may not have sent.
    """

    def __init__(
        self,
        parent: Future[StudyRun],
        study: str,
        metric: str,
        spool: Spool | None = None,
        trials: Mapping[int, TrialRecord] = MappingProxyType({}),
        unsent: Iterable[Call] = (),
    ) -> None:
        super().__init__()
        self._writer = RunWriter(parent, {"study": study}, spool, trials, unsent)
        self._metric = metric
        self._seconds = 0.0
        self._epochs: dict[int, int] = {}
        self._open: set[int] = set()
        self._ended = {number for number, trial in trials.items() if trial.ended}
        self._best = min(
            (self._merit(n, trial.result) for n, trial in trials.items() if trial.result),
            default=NO_MERIT,
        )
        self._duplicates: dict[int, list[int]] = defaultdict(list)

    def setup(self, *args: Any, **info: Any) -> None:
        """Does nothing: the study's run is made elsewhere."""

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Ends the search if the study's run could not be made.

        Raises:
            TrackingError: Why it could not.
        """
        self._writer.check()

    def log_trial_start(self, trial: Trial) -> None:
        """Opens a run for every trial of a pack."""
        for member in trial.config["trials"]:
            number, original = member["number"], member["duplicate_of"]
            if number in self._open or number in self._ended:
                continue
            tags = {"pack": str(trial.config["pack"])}
            if original is not None:
                tags["duplicate_of"] = str(original)
                self._duplicates[original].append(number)
            self._writer.start(number, member["params"], tags)
            self._open.add(number)
            if original in self._ended:
                self._copy(original)

    @property
    def seconds(self) -> float:
        """Processor time that this callback and its writer have spent."""
        return self._seconds + self._writer.seconds

    def log_trial_result(self, iteration: int, trial: Trial, result: dict[str, Any]) -> None:
        """Records the epochs and the ends that a report carries."""
        started = time.thread_time()
        new = [record for record in result["records"] if self._is_new(record)]
        for record in new:
            self._epochs[record["trial"]] = record["epoch"]
        if new:
            self._writer.record(new)
        if "best" in result:
            self._keep_best(result)
        for ended in result["results"]:
            if ended["trial"] not in self._ended:
                self._end(ended)
        self._seconds += time.thread_time() - started

    def log_trial_end(self, trial: Trial, failed: bool = False) -> None:
        """Fails what a pack that has died for good leaves open."""
        if failed:
            # A worker that cannot be set up fails before its pack has started.
            self.log_trial_start(trial)
        if failed and not is_tried_in_parts(trial.config):
            for number in trained(trial.config):
                if number in self._open:
                    self._end(_without_score(number, Outcome.FAILED, failure_reason(trial)))

    def close(self, reason: str = "the study was stopped") -> None:
        """Marks what is still open as interrupted, and returns when all is written.

        Args:
            reason: Why it was.

        Raises:
            TrackingError: If the store does not take it.
        """
        for number in sorted(self._open):
            if number in self._open:
                self._end(_without_score(number, Outcome.INTERRUPTED, reason))
        self._writer.close()

    def _is_new(self, record: Mapping[str, Any]) -> bool:
        number = record["trial"]
        return number not in self._ended and record["epoch"] > self._epochs.get(number, 0)

    def _keep_best(self, result: Mapping[str, Any]) -> None:
        """Keeps the weights of the best trial so far, before its run says that it has ended.

        Not of one that was interrupted: it ends with others.
        """
        number = result["best"]["trial"]
        for ended in result["results"]:
            if ended["trial"] == number and ended["outcome"] != Outcome.INTERRUPTED:
                key = self._merit(number, ended)
                if key < self._best:
                    self._best = key
                    self._writer.keep_weights(number, result["best"]["weights"])

    def _merit(self, number: int, ended: Mapping[str, Any]) -> tuple[float, ...]:
        return merit(self._metric, ended["metrics"], ended["best_epoch"], number)

    def _end(self, result: Mapping[str, Any]) -> None:
        number = result["trial"]
        # What an interrupted trial has is no metric of its run: those cannot be taken back.
        is_final = result["outcome"] != Outcome.INTERRUPTED
        metrics = {"seconds": result["seconds"]} if result["epochs"] and is_final else {}
        if result["score"] is not None and is_final:
            metrics[f"best_{self._metric}"] = result["score"]
            metrics["best_epoch"] = result["best_epoch"]
        self._writer.end(number, result, metrics)
        self._open.discard(number)
        self._ended.add(number)
        self._copy(number)

    def _copy(self, original: int) -> None:
        for number in self._duplicates.pop(original, []):
            self._writer.copy(number, original)
            self._open.discard(number)
            self._ended.add(number)


def _without_score(number: int, outcome: Outcome, reason: str) -> dict[str, Any]:
    result = TrialResult(number, outcome, reason, 0, 0, None, {}, 0.0)
    fields = {**asdict(result), "outcome": outcome.value}
    del fields["weights"]
    return fields


def trained(config: Mapping[str, Any]) -> list[int]:
    """Returns the numbers of a pack's trials that are not duplicates."""
    return [member["number"] for member in config["trials"] if member["duplicate_of"] is None]


def is_tried_in_parts(config: Mapping[str, Any]) -> bool:
    """Tells whether the trials of a pack that dies for good are tried again, each alone.

    So one that kills its worker does not take its neighbours with it.
    """
    return len(trained(config)) > 1


def failure_reason(trial: Trial) -> str:
    """Returns in one line why Tune gave a pack up."""
    # `trial.get_error` looks where Tune would copy this file to, later.
    file = Path(trial.error_file or "")
    text = file.read_text(errors="replace") if file.is_file() else ""
    lines = [line for line in text.splitlines() if line.strip()]
    return f"its worker failed: {lines[-1].strip()[:200]}" if lines else "its worker failed"
