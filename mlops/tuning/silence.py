"""Ends workers that have gone silent."""

from __future__ import annotations

import time
from typing import Any

import ray
from ray.tune import Callback
from ray.tune.experiment import Trial

# A worker that can ends itself in time, and says where it hung.
GRACE_SECONDS = 5.0


class Silence(Callback):
    """Ends the worker of a pack that reports nothing for too long; Tune starts the pack again.

    A worker ends itself, unless it cannot: one that is stopped, or waits for a disk or a device in
    the kernel.

    Args:
        timeout: Seconds without a report that are too long; None for no such limit.
    """

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._heard: dict[Trial, float] = {}

    def on_trial_start(self, *, trial: Trial, **info: Any) -> None:
        """Begins to wait for a pack."""
        self._heard[trial] = time.monotonic()

    def on_trial_result(self, *, trial: Trial, **info: Any) -> None:
        """Goes on waiting."""
        self._heard[trial] = time.monotonic()

    def on_trial_recover(self, *, trial: Trial, **info: Any) -> None:
        """Waits no more."""
        self._heard.pop(trial, None)

    on_trial_complete = on_trial_error = on_trial_recover

    def on_step_end(self, **info: Any) -> None:
        """Looks for silent packs."""
        if self._timeout is None:
            return
        too_long_ago = time.monotonic() - self._timeout - GRACE_SECONDS
        for trial in [trial for trial, heard in self._heard.items() if heard < too_long_ago]:
            del self._heard[trial]
            if trial.temporary_state.ray_actor is not None:
                ray.kill(trial.temporary_state.ray_actor)
