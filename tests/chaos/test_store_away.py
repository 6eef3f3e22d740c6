"""A tracking server that is slow, or gone for a while, or for good: training goes on."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from chaos_harness import environment, finish, start, table

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


class Server:
    """`mlflow server` on a port of its own, which may be stopped and started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        words = [sys.executable, "-m", "mlflow", "server", "--port", str(self.port)]
        words += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db"]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                words,
                cwd=self.folder,
                env=environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 120
        while not self.answers():
            assert time.monotonic() < deadline, (self.folder / "server.log").read_text()
            time.sleep(0.2)

    def answers(self) -> bool:
        with suppress(OSError), urlopen(f"{self.uri}/health", timeout=5) as answer:
            return bool(answer.status == 200)
        return False

    def stop(self) -> None:
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "server"
    folder.mkdir()
    server = Server(folder)
    server.start()
    yield server
    server.stop()


def test_a_server_that_is_away_for_20_seconds(
    undisturbed: dict[int, Any], tmp_path: Path, server: Server
) -> None:
    driver = start(tmp_path, MLFLOW_TRACKING_URI=server.uri)
    driver.wait_for("best")
    server.stop()
    time.sleep(20)
    server.start()
    assert driver.process.wait(200) == 0, driver.said()
    assert table(server.uri) == undisturbed


def test_a_server_that_is_gone_for_good(
    undisturbed: dict[int, Any], tmp_path: Path, server: Server
) -> None:
    driver = start(tmp_path, MLFLOW_TRACKING_URI=server.uri)
    driver.wait_for("best")
    server.stop()
    assert driver.process.wait(300) == 1, driver.said()
    last = driver.said().splitlines()[-1]
    assert last.startswith("error: the MLflow store must accept the record")
    assert str(tmp_path / "studies" / "chaos") in last
    assert "40/40 trials" in driver.said()
    assert (tmp_path / "studies" / "chaos" / "record.jsonl").exists()
    server.start()
    finish(tmp_path, "--resume", MLFLOW_TRACKING_URI=server.uri)
    assert table(server.uri) == undisturbed
    assert not (tmp_path / "studies").exists()
