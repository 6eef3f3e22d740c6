"""The run of a study: whose it is."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlops.errors import InputError, RecordError
from mlops.tracking.store import lease
from mlops.tracking.store.store import Store
from mlops.tracking.study.spool import Spool
from mlops.tracking.study.study_run import StudyRun

PACKING = {"pack_size": 2, "packs_in_flight": 3}


@pytest.fixture(autouse=True)
def without_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlops.tracking.study.study_run.log_dataset", lambda *given: None)


def create(store: Store, study: str, folder: Path) -> StudyRun:
    parts: Any = SimpleNamespace(digest="d", notes=())
    spool = Spool(folder / study)
    try:
        return StudyRun.create(store, study, {"seed": 0}, parts, PACKING, 20, spool)
    finally:
        spool.close(sent=False)


def test_the_run_of_a_study_is_not_made_another_ones(
    sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two jobs in an environment of one `mlflow run`."""
    given = sqlite_store.client.create_run(sqlite_store.experiment_id).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", given)
    first = create(sqlite_store, "first", tmp_path)
    before = sqlite_store.client.get_run(given)
    with pytest.raises(InputError, match=f"no study yet, got {given}, the study `first`; unset"):
        create(sqlite_store, "second", tmp_path)
    after = sqlite_store.client.get_run(given)
    assert after.info.lifecycle_stage == "active"
    assert after.data.tags == before.data.tags
    first.end()


def test_a_driver_that_has_lost_its_study_does_not_end_it(
    sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = create(sqlite_store, "one", tmp_path)
    sqlite_store.client.set_tag(run.run_id, lease.DriverTag.name, '{"id": "other", "host": "far"}')
    monkeypatch.setattr(lease, "SURE_SECONDS", 0.0)
    run.end(RuntimeError("whatever"))
    assert sqlite_store.client.get_run(run.run_id).info.status == "RUNNING"
    with pytest.raises(RecordError, match="got another one on far"):
        run.end()
    assert sqlite_store.client.get_run(run.run_id).info.status == "RUNNING"
    assert lease.DriverTag.name in sqlite_store.client.get_run(run.run_id).data.tags
