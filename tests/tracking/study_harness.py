"""What tests of the record share."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

from mlops.tracking.store import Store


def made(store: Store, run_id: str) -> Future[Any]:
    """A study's run that has been made, as far as its children need it."""
    run: Future[Any] = Future()
    run.set_result(SimpleNamespace(store=store, run_id=run_id))
    return run
