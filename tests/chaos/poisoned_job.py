"""Runs `ray_jobs.tune` with workers that one trial kills."""

from __future__ import annotations

import sys

from mlops.console import leave, run_job
from mlops.tuning import execution
from ray_jobs import tune

if __name__ == "__main__":
    from poison import PoisonedTrial

    execution.PackTrial = PoisonedTrial  # type: ignore[misc]
    leave(run_job(lambda: tune.main(sys.argv[1:])))
