"""A study from table to registered model: plan, preparation, search, conclusion."""

from __future__ import annotations

import gc
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, redirect_stdout
from typing import Any

from mlops.cluster.connection import Connection
from mlops.tracking.store.store import prepare_environment
from mlops.tracking.study.spool import Spool
from mlops.tracking.study.storage import study_folder
from mlops.tuning.conclusion import conclude, ended, told, warm_up
from mlops.tuning.plan import Plan
from mlops.tuning.preparation import Means, prepare


def run(plan: Plan) -> dict[str, Any]:
    """Runs a study: load, search, score the best on the test part, record, register.

    Nothing is recorded before the table has been read and checked. Meanwhile Ray starts, except
    that a file is read first, so that what is wrong with it is told at once.

    A study that is resumed trains what is left of it, and ends as it would have ended at once.

    Returns:
        The study's result, JSON values.

    Raises:
        InputError: If the table or the resources cannot be used; nothing is recorded then.
        TrackingError: If the MLflow store cannot be used.
        RecordError: If it fails later.
        StudyError: If no trial has a score.
        KeyboardInterrupt: If the user stopped it; what was done is recorded.
    """
    started = time.monotonic()
    prepare_environment(retries=0)
    with ExitStack() as stack:
        # Libraries may print; stdout is for the job's result alone.
        stack.enter_context(redirect_stdout(sys.stderr))
        means = _means(plan, started, stack)
        ready = prepare(plan, means)
        proposed = threading.Event()
        stack.callback(proposed.set)
        warming = means.background.submit(warm_up, proposed)
        with ended(ready.run, plan.keeping.again):
            # Imported by now, in the background.
            from mlops.tuning.execution import search

            found = search(ready, proposed.set)
            concluded = conclude(found, warming)
        means.spool.close(sent=True, goes_on=found.stop.reason is not None)
    seconds = round(time.monotonic() - started, 2)
    return {**told(found, concluded), "seconds": seconds}


def _means(plan: Plan, started: float, stack: ExitStack) -> Means:
    """Opens what all stages work with; the stack closes it."""
    connection = stack.enter_context(closing(Connection(plan.crew.address)))
    background = ThreadPoolExecutor(max_workers=1)
    stack.callback(background.shutdown, wait=False, cancel_futures=True)
    # Searching for garbage after every few hundred new objects is a fifth of what imports cost.
    gc.disable()
    stack.callback(gc.enable)
    spool = Spool(study_folder(plan.keeping.storage, plan.name))
    spool.check()
    stack.callback(spool.close, sent=False)
    budget = plan.end.time_budget
    deadline = None if budget is None else started + budget
    return Means(connection, background, spool, deadline)
