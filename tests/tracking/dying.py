"""A driver that is killed at a chosen moment of what it asks of the store; no Ray is needed.

A moment is the beginning or the end of a call of MLflow's client, or the beginning of a commit or,
in a store of files, of the writing of a tag.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mlops.errors import InputError
from mlops.nn.records import MERIT
from mlops.tracking.store import lease
from mlops.tracking.store.store import Store, open_store
from mlops.tracking.study import study_run
from mlops.tracking.study.spool import Spool

PACKING = {"pack_size": 2, "packs_in_flight": 3, "merit": MERIT}
REFUSED = 2


class Watched:
    """A client whose calls are moments."""

    def __init__(self, client: Any, moment: Callable[[], None]) -> None:
        self._client, self._moment = client, moment

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if name.startswith("_") or not callable(found):
            return found

        def call(*given: Any, **named: Any) -> Any:
            self._moment()
            result = found(*given, **named)
            self._moment()
            return result

        return call


def create(store: Store, study: str, settings: Mapping[str, Any], folder: Path) -> Any:
    parts: Any = SimpleNamespace(digest="d", notes=())
    spool = Spool(folder / study)
    try:
        return study_run.StudyRun.create(store, study, settings, parts, PACKING, 20, spool)
    finally:
        spool.close(sent=False)


def create_and_die(
    uri: str, study: str, settings: Mapping[str, Any], at: int, given: str | None, folder: Path
) -> None:
    """Begins a study and ends it, unless it is killed at the moment `at`, from 1."""
    from mlflow.store.tracking.file_store import FileStore
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    if given is not None:
        os.environ["MLFLOW_RUN_ID"] = given
    if at:
        without_settling()
    study_run.log_dataset = lambda store, run_id, parts: store.client.get_run(run_id)  # type: ignore[attr-defined]
    store, moments = open_store(uri), itertools.count(1)

    def moment(*_: Any) -> None:
        if next(moments) == at:
            os.kill(os.getpid(), signal.SIGKILL)

    store.__dict__["client"] = Watched(store.client, moment)
    event.listen(Engine, "commit", moment)
    set_tag = FileStore._set_run_tag

    def watched_tag(self: FileStore, run_info: Any, tag: Any) -> None:
        moment()
        set_tag(self, run_info, tag)

    FileStore._set_run_tag = watched_tag
    try:
        create(store, study, settings, folder).end()
    except InputError:
        os._exit(REFUSED)


def without_settling() -> None:
    """Spares the wait that tells drivers apart who begin at once."""
    lease.time = SimpleNamespace(monotonic=time.monotonic, sleep=lambda seconds: None)  # type: ignore[attr-defined]


def processes() -> ForkServerContext:
    """Processes that begin with all of MLflow imported."""
    # A model that MLflow has loaded in this process put its own copy of the package before.
    sys.path.insert(0, str(Path(__file__).parents[2]))
    context = get_context("forkserver")
    with suppress(ValueError):
        context.set_forkserver_preload(["dying", "mlflow.store.tracking.sqlalchemy_store"])
    return context
