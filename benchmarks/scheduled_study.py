"""`ray_jobs.tune` with a timeline: what `scheduling.py` runs.

python -m benchmarks.scheduled_study [flags of ray_jobs.tune]
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from benchmarks.scheduling import Timeline
from mlops.console import leave, run_job
from mlops.tracking.study.logger import StudyLogger
from mlops.tuning import execution
from mlops.tuning.search.packs import PackSearch
from mlops.tuning.training.trial import PackTrial
from ray_jobs import tune

LINE = Timeline()


class TimedSearch(PackSearch):
    """Notes when the searcher works, and when a worker is free and it has nothing to propose."""

    def __init__(self, *args: Any, workers: int, **named: Any) -> None:
        super().__init__(*args, workers=workers, **named)
        LINE.workers = workers
        self._out: dict[str, int] = {}
        self._stalled_since: float | None = None
        self._cpu_at_start = time.thread_time()
        self._process_at_start = time.process_time()

    def suggest(self, trial_id: str) -> Any:
        began, cpu = time.monotonic(), time.thread_time()
        pack = super().suggest(trial_id)
        ended = time.monotonic()
        LINE.searching.append((began, ended))
        LINE.search_cpu += time.thread_time() - cpu
        if self._stalled_since is not None:
            LINE.stalled.append((self._stalled_since, began))
        stalled = pack is None and len(self._out) < LINE.workers
        self._stalled_since = ended if stalled else None
        if isinstance(pack, dict):
            self._out[trial_id] = len(pack["trials"])
        return pack

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        super().on_trial_result(trial_id, result)
        LINE.training += result["spans"]

    def on_trial_complete(self, trial_id: str, *args: Any, **named: Any) -> None:
        super().on_trial_complete(trial_id, *args, **named)
        LINE.ended.append((time.monotonic(), self._out.pop(trial_id)))
        LINE.driver_cpu = time.thread_time() - self._cpu_at_start
        LINE.process_cpu = time.process_time() - self._process_at_start


class TimedTrial(PackTrial):
    """Says when its worker worked on a pack, and which worker it was."""

    def setup(self, *args: Any, **named: Any) -> None:
        super().setup(*args, **named)
        self._spans: list[tuple[int, float, float]] = []

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        return bool(self._timed(lambda: super(TimedTrial, self).reset_config(new_config)))

    def step(self) -> dict[str, Any]:
        report = self._timed(super().step)
        spans, self._spans = self._spans, []
        return {**report, "spans": spans}

    def _timed(self, work: Callable[[], Any]) -> Any:
        began = time.monotonic()
        result = work()
        self._spans.append((os.getpid(), began, time.monotonic()))
        return result


class TimedLogger(StudyLogger):
    """Notes how long the record takes when the search is over."""

    def close(self, *reason: str) -> None:
        began = time.monotonic()
        super().close(*reason)
        LINE.closing = time.monotonic() - began


def main(argv: list[str]) -> dict[str, Any]:
    execution.PackSearch = TimedSearch  # type: ignore[misc]
    execution.PackTrial = TimedTrial  # type: ignore[misc]
    execution.StudyLogger = TimedLogger  # type: ignore[misc]
    result = tune.main(argv)
    return {**result, "timeline": asdict(LINE)}


if __name__ == "__main__":
    leave(run_job(lambda: main(sys.argv[1:])))
