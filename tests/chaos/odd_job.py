"""Runs `ray_jobs.tune` with workers of `odd_workers`: python odd_job.py CLASS --max_evals 40 ..."""

from __future__ import annotations

import sys

import odd_workers

from mlops.console import leave, run_job
from mlops.tuning import execution
from ray_jobs import tune

if __name__ == "__main__":
    execution.PackTrial = getattr(odd_workers, sys.argv[1])  # type: ignore[misc]
    leave(run_job(lambda: tune.main(sys.argv[2:])))
