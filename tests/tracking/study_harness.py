"""What tests of the record share."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pandas as pd

from mlops.data.columns.finding import read_frame
from mlops.data.columns.reading import Reading
from mlops.nn.records import Outcome
from mlops.tracking.store.store import Store
from mlops.tracking.study.writing.writer import RunWriter


def made(store: Store, run_id: str) -> Future[Any]:
    """A study's run that has been made, as far as its children need it."""
    run: Future[Any] = Future()

    def nothing() -> None: ...

    run.set_result(SimpleNamespace(store=store, run_id=run_id, check=nothing, hold=nothing))
    return run


def read(raw: pd.DataFrame) -> tuple[pd.DataFrame, tuple[Reading, ...]]:
    """Reads the columns of a table; returns them, and how."""
    columns = read_frame(raw)
    frame = pd.DataFrame({column.reading.name: column.values for column in columns})
    return frame, tuple(column.reading for column in columns)


def end(
    writer: RunWriter,
    trial: int,
    outcome: Outcome,
    reason: str | None = None,
    metrics: Mapping[str, float] = MappingProxyType({}),
) -> None:
    """Ends a trial as the logger does, as far as a test looks."""
    result = {"trial": trial, "outcome": outcome.value, "reason": reason, "score": None}
    writer.end(trial, result, metrics)
