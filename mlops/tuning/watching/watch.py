"""Watches over a study's workers: those that die or go silent, and that there are any."""

from __future__ import annotations

import math
import sys
import time
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

from mlops.tracking.study.logger import failure_reason
from mlops.tuning.training.loop import end_worker
from mlops.tuning.watching.stopping import Stop

# A worker that can ends itself in time, and says where it hung.
GRACE_SECONDS = 5.0
# Seconds from one look for silent workers, among all of them, to the next.
LOOK_SECONDS = 1.0
# A worker takes some seconds to start.
QUIET_SECONDS = 30.0


class Watch(Callback):
    """Ends silent workers, and the study when it has had none for too long; tells of dead ones.

    A silent worker ends itself, unless it cannot: one that is stopped, or waits for a disk or a
    device in the kernel. Tune starts its pack again, on another one. Without any it would wait for
    ever.

    Args:
        stop: What ends the study.
        silence: Seconds without an epoch that are too long; None for no such limit.
        absence: Seconds without a worker that are too long.
        report_every: Seconds from one report of a worker to the next, whatever goes on in it.
    """

    def __init__(
        self, stop: Stop, silence: float | None, absence: float, report_every: float
    ) -> None:
        self._stop, self._absence = stop, absence
        self._silence = None if silence is None else silence + report_every + GRACE_SECONDS
        self._looked = -math.inf
        self._heard: dict[Trial, float] = {}
        self._lost: set[Trial] = set()
        self._last_any = time.monotonic()
        self._has_told = False

    def on_trial_start(self, *, trial: Trial, **info: Any) -> None:
        """Begins to wait for a pack."""
        self._heard[trial] = time.monotonic()
        if trial in self._lost:
            self._lost.remove(trial)
            _tell(f"pack {trial.config['pack']} is started again")

    def on_trial_result(self, *, trial: Trial, **info: Any) -> None:
        """Goes on waiting."""
        self._heard[trial] = time.monotonic()

    def on_trial_recover(self, *, trial: Trial, **info: Any) -> None:
        """Waits no more, but for another worker."""
        self._heard.pop(trial, None)
        self._lost.add(trial)
        _tell(f"pack {trial.config['pack']} is to be started again: {failure_reason(trial)}")

    def on_trial_complete(self, *, trial: Trial, **info: Any) -> None:
        """Waits no more."""
        self._heard.pop(trial, None)

    on_trial_error = on_trial_complete

    def on_step_end(self, **info: Any) -> None:
        """Looks for silent workers, and for any."""
        now = time.monotonic()
        if self._silence is not None and now - self._looked >= LOOK_SECONDS:
            self._looked = now
            self._end_silent(now - self._silence)
        if self._heard:
            self._last_any, self._has_told = now, False
        elif now - self._last_any > self._absence:
            self._stop.give_up(f"there must be a worker, got none for {self._absence:g} s")
        elif now - self._last_any > QUIET_SECONDS and not self._has_told:
            self._has_told = True
            _tell(f"no worker is there; stopping if there is none in {self._absence:g} s in all")

    def _end_silent(self, too_long_ago: float) -> None:
        for trial in [trial for trial, heard in self._heard.items() if heard < too_long_ago]:
            del self._heard[trial]
            end_worker(trial)


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
