"""What ends a study before its last trial: a budget, a target, the user."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray.tune import Stopper

from mlops.nn.tasks.metrics import METRICS
from mlops.tuning.watching.ledger import Ledger

# How long packs under way may take to release their trials: they do when an epoch is over.
RELEASE_SECONDS = 60.0
# The same, when a person waits.
INTERRUPT_SECONDS = 5.0


class Stop(Stopper):
    """Stops a study tidily: packs under way release their trials, marked as interrupted.

    Args:
        ledger: The study's trials.
        deadline: When to stop, by `time.monotonic`; None for never. Not before an epoch is trained,
            though, unless that takes for too long.
        target: Stop when the study's metric is as good after any epoch; None for never.

    Attributes:
        reason: Why the study was stopped; None if it was not.
        by_user: Whether the user did.
        error: What is wrong, if that is why.
    """

    def __init__(
        self, ledger: Ledger, deadline: float | None = None, target: float | None = None
    ) -> None:
        self._ledger, self._deadline, self._target = ledger, deadline, target
        self._since: float | None = None
        self.reason: str | None = None
        self.by_user = False
        self.error: str | None = None

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Looks for the target in what a pack reports; stops no single pack."""
        if self._target is not None and self.reason is None:
            failed = {end["trial"] for end in result["results"] if end["score"] is None}
            metric = self._ledger.metric
            scores = [r[metric] for r in result["records"] if r["trial"] not in failed]
            reached = [score for score in scores if self._is_reached(score)]
            if reached:
                self.reason = _at_target(metric, reached[0])
        return False

    def stop_all(self) -> bool:
        """Says whether to stop now."""
        if self.reason is None:
            self.reason = self._why()
        return self.reason is not None

    @property
    def is_over(self) -> bool:
        """Whether packs that are still under way have had their time to release their trials."""
        seconds = INTERRUPT_SECONDS if self.by_user else RELEASE_SECONDS
        self._since = self._since or time.monotonic()
        return time.monotonic() - self._since > seconds

    def give_up(self, error: str) -> None:
        """Stops a study that cannot go on now."""
        self.error = self.reason = error

    def _why(self) -> str | None:
        best, metric = self._ledger.best, self._ledger.metric
        score = None if best is None else best.score
        if score is not None and self._is_reached(score):
            return _at_target(metric, score)
        if self._deadline is not None:
            late = time.monotonic() - self._deadline
            # A budget that the start of Ray uses up still gets a study on: resumed again and again,
            # it ends.
            if late > (0 if self._ledger.epochs else RELEASE_SECONDS):
                return "the time_budget was spent"
        return None

    def _is_reached(self, score: float) -> bool:
        if self._target is None:
            return False
        return METRICS[self._ledger.metric].reaches(score, self._target)

    @contextmanager
    def on_interrupt(self) -> Iterator[None]:
        """Stops tidily at the first Ctrl-C, at once at the second.

        That holds until the process ends: what is recorded after the first takes its time.
        """
        before = signal.getsignal(signal.SIGINT)
        signal.signal(signal.SIGINT, self._interrupt)
        try:
            yield
        finally:
            if not self.by_user:
                signal.signal(signal.SIGINT, before)

    def _interrupt(self, *_: object) -> None:
        self.by_user = True
        self.reason = self.reason or "the study was stopped"
        signal.signal(signal.SIGINT, _leave)
        print("stopping; Ctrl-C again stops at once", file=sys.stderr, flush=True)


def _at_target(metric: str, score: float) -> str:
    return f"the target was reached, {metric} {score:g}"


def _leave(*_: object) -> None:
    print("stopped at once; --resume goes on", file=sys.stderr, flush=True)
    os._exit(130)
