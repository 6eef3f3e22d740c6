"""A clean environment for every test: an empty folder, nothing of MLflow or Ray from outside."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

FOREIGN = ("MLFLOW_", "RAY_", "TUNE_")


def pytest_configure() -> None:
    """Lets Ctrl-C interrupt, also when the tests are a background job, which ignores it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Each test starts in an empty folder; what it or the code sets of these names is undone."""
    before = set(os.environ)
    for name in [name for name in os.environ if name.startswith(FOREIGN)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.chdir(tmp_path)
    yield
    # `mlflow.set_tracking_uri` writes into the environment.
    for name in {name for name in os.environ if name.startswith("MLFLOW_")} - before:
        del os.environ[name]


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One local Ray for all that runs inside the test process."""
    # Not above: the tests of `mlops.nn` also run where there is no Ray.
    from mlops.cluster.connection import Connection

    connection = Connection()
    connection.open()
    yield
    connection.close()
