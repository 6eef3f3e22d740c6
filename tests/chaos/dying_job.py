"""Runs `ray_jobs.tune` until the n-th call of a function, and dies there by SIGKILL.

python dying_job.py mlops.tracking.writer:RunWriter._create 7 after --max_evals 40 ...
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from typing import Any

from mlops.console import leave, run_job
from ray_jobs import tune


def die_at(target: str, call: int, when: str) -> None:
    module, _, path = target.partition(":")
    *owners, name = path.split(".")
    owner: Any = importlib.import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    function, calls = getattr(owner, name), 0

    def counted(*given: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*given, **named)
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, counted)


if __name__ == "__main__":
    die_at(sys.argv[1], int(sys.argv[2]), sys.argv[3])
    leave(run_job(lambda: tune.main(sys.argv[4:])))
