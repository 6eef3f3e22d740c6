"""A store that is away, slow, broken, locked or full: training goes on and nothing is lost.

The workers take their time: else all could be recorded before the store is away.
"""

from __future__ import annotations

import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chaos_harness import finish, start, start_with, table, versions
from proxy import proxy_to
from servers import MlflowServer, postgresql

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MlflowServer]:
    (tmp_path / "server").mkdir()
    server = MlflowServer(tmp_path / "server")
    server.start()
    yield server
    server.stop()


def test_a_server_on_postgresql_that_is_away_for_20_seconds(
    undisturbed: dict[int, Any], tmp_path: Path, cluster: dict[str, str]
) -> None:
    (tmp_path / "server").mkdir()
    with postgresql() as database:
        server = MlflowServer(tmp_path / "server", database)
        server.start()
        try:
            driver = start_with(
                "LeisurelyTrial", tmp_path, MLFLOW_TRACKING_URI=server.uri, **cluster
            )
            driver.wait_for("best")
            server.stop()
            time.sleep(20)
            server.start()
            assert driver.process.wait(200) == 0, driver.said()
            assert table(server.uri) == undisturbed
            assert versions(server.uri) == 1
        finally:
            server.stop()
    assert not (tmp_path / "studies").exists()


def test_a_server_that_is_gone_for_good(
    undisturbed: dict[int, Any],
    tmp_path: Path,
    server: MlflowServer,
    cluster: dict[str, str],
) -> None:
    driver = start_with("LeisurelyTrial", tmp_path, MLFLOW_TRACKING_URI=server.uri, **cluster)
    driver.wait_for("best")
    server.stop()
    assert driver.process.wait(300) == 1, driver.said()
    assert "40/40 trials" in driver.said()
    assert "the MLflow store must accept the record" in driver.said()
    assert f"{tmp_path / 'studies' / 'chaos'} keeps what is missing" in driver.said()
    assert "to go on: python -m ray_jobs.tune --study chaos" in driver.said()
    assert "Traceback" not in driver.said()
    spool = tmp_path / "studies" / "chaos" / "record.jsonl"
    assert spool.exists()

    # As a disk that filled, or a power cut, would have left it.
    spool.write_text(spool.read_text() + '["record", [{"trial": 1, "epo')
    server.start()
    again = finish(tmp_path, "--resume", MLFLOW_TRACKING_URI=server.uri, **cluster)
    assert f"of {spool} is not whole and is left out: " in again.said()
    assert table(server.uri) == undisturbed
    assert versions(server.uri) == 1
    assert not (tmp_path / "studies").exists()


def test_a_server_that_answers_after_2_seconds_or_with_500(
    undisturbed: dict[int, Any],
    tmp_path: Path,
    server: MlflowServer,
    cluster: dict[str, str],
) -> None:
    with proxy_to(server.uri) as proxy:
        proxy.delay = 2.0
        driver = start(tmp_path, MLFLOW_TRACKING_URI=proxy.uri, **cluster)
        driver.wait_until_recorded()
        proxy.broken = True
        time.sleep(10)
        proxy.broken, proxy.delay = False, 0.5
        assert driver.process.wait(300) == 0, driver.said()
        assert proxy.passed > 3 * len(undisturbed)
        assert proxy.refused
    assert table(server.uri) == undisturbed
    assert versions(server.uri) == 1


def test_a_server_whose_answers_get_lost(
    undisturbed: dict[int, Any],
    tmp_path: Path,
    server: MlflowServer,
    cluster: dict[str, str],
) -> None:
    """What was created without our hearing of it is not created again."""
    with proxy_to(server.uri) as proxy:
        proxy.losing = True
        finish(tmp_path, MLFLOW_TRACKING_URI=proxy.uri, **cluster)
        assert proxy.lost > len(undisturbed) / 4
    assert table(server.uri) == undisturbed


def test_a_database_locked_for_15_seconds(
    undisturbed: dict[int, Any], tmp_path: Path, uri: str, cluster: dict[str, str]
) -> None:
    driver = start_with("LeisurelyTrial", tmp_path, **cluster)
    driver.wait_for("best")
    with sqlite3.connect(tmp_path / "mlflow.db", timeout=60) as other:
        other.execute("BEGIN EXCLUSIVE")
        time.sleep(15)
        other.rollback()
    other.close()
    assert driver.process.wait(200) == 0, driver.said()
    assert table(uri) == undisturbed


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_disk_that_fills(undisturbed: dict[int, Any], small_disk: Path, tmp_path: Path) -> None:
    uri = f"sqlite:///{small_disk}/mlflow.db"
    driver = start_with("LeisurelyTrial", small_disk, log_folder=tmp_path)
    driver.wait_for("best")
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(b"\0" * 4096)
            except OSError:
                break
    assert driver.process.wait(300) == 1, driver.said()
    assert "No space left" in driver.said() or "disk is full" in driver.said()
    assert "to go on: python -m ray_jobs.tune --study chaos" in driver.said()
    assert "Traceback" not in driver.said()

    filler.unlink()
    finish(small_disk, "--resume")
    assert table(uri) == undisturbed
    assert versions(uri) == 1
    assert not (small_disk / "studies").exists()
