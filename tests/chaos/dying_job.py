"""Runs `ray_jobs.tune` until the n-th call of a function, and dies there by SIGKILL.

python dying_job.py mlops.tracking.study.writing.sender:create_run 7 after --max_evals 40 ...
"""

from __future__ import annotations

import importlib
import itertools
import os
import signal
import sys
import threading
from typing import Any

from mlops.console import leave, run_job
from ray_jobs import tune


def die_at(target: str, call: int, when: str) -> None:
    module, _, path = target.partition(":")
    *owners, name = path.split(".")
    owner: Any = importlib.import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    function, counter, lock = getattr(owner, name), itertools.count(1), threading.Lock()

    def counted(*given: Any, **named: Any) -> Any:
        with lock:
            mine = next(counter)
        if mine == call and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*given, **named)
        if mine == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, counted)


if __name__ == "__main__":
    die_at(sys.argv[1], int(sys.argv[2]), sys.argv[3])
    leave(run_job(lambda: tune.main(sys.argv[4:])))
