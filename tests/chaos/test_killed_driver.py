"""A driver killed at any moment: the study goes on as if it had not been."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from chaos_harness import Driver, finish, start, table, versions
from servers import MlflowServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

HERE = Path(__file__).parent
WRITER = "mlops.tracking.study.writing.writer"
SENDER = "mlops.tracking.study.writing.sender"
MODEL = "mlops.tracking.study.best_model"
RUN = "mlops.tracking.study.study_run"
# (function, which call of it, whether it has been carried out). Each line is one study's deaths.
BEFORE_A_SERVER = [
    [
        (f"{RUN}:StudyRun._describe", 1, "before"),  # the study's run has just been made
        (f"{SENDER}:create_run", 3, "after"),  # a child run without its params
        (f"{SENDER}:Sender._send", 9, "before"),  # in the middle of a flush
        (f"{MODEL}:log_model", 1, "before"),
        (f"{MODEL}:log_model", 1, "after"),  # a model, not yet registered
    ],
    [
        (f"{SENDER}:fill_run", 5, "after"),  # values, but the run not ended
        (f"{WRITER}:RunWriter._send_file", 1, "after"),
        (f"{SENDER}:Sender._look", 1, "after"),
        ("mlops.tracking.models.registry:register", 1, "after"),
        ("mlops.tracking.models.promotion:_crown", 1, "before"),
    ],
]
BEFORE_A_DATABASE = [
    ("mlops.tracking.study.spool:Spool.add", 12, "before"),
    (f"{SENDER}:write_runs", 1, "after"),  # runs on record, which the driver has not heard of
    ("mlops.tracking.study.spool:Spool.add", 14, "after"),
    (f"{SENDER}:write_runs", 2, "before"),
    ("mlops.tracking.models.registry:_link_version", 1, "before"),
    ("mlops.tracking.models.promotion:_crown", 1, "after"),
    (f"{RUN}:StudyRun.end", 1, "before"),
]


def die(folder: Path, moment: tuple[str, int, str], resume: list[str], **variables: str) -> Driver:
    target, call, when = moment
    program = [str(HERE / "dying_job.py"), target, str(call), when]
    driver = start(folder, *resume, program=program, **variables)
    status = driver.process.wait(300)
    assert status == -signal.SIGKILL, f"{moment} never came: {driver.said()}"
    return driver


def die_and_finish(folder: Path, deaths: list[tuple[str, int, str]], **variables: str) -> None:
    resume: list[str] = []
    for moment in deaths:
        die(folder, moment, resume, **variables)
        resume = ["--resume"]
    finish(folder, "--resume", **variables)
    assert not (folder / "studies").exists()


@pytest.mark.parametrize("deaths", BEFORE_A_SERVER, ids=["making", "ending"])
def test_at_the_nasty_moments_before_a_server(
    deaths: list[tuple[str, int, str]],
    undisturbed: dict[int, Any],
    tmp_path: Path,
    cluster: dict[str, str],
) -> None:
    (tmp_path / "server").mkdir()
    server = MlflowServer(tmp_path / "server")
    server.start()
    try:
        die_and_finish(tmp_path, deaths, MLFLOW_TRACKING_URI=server.uri, **cluster)
        assert table(server.uri) == undisturbed
        assert versions(server.uri) == 1
    finally:
        server.stop()


def test_at_the_nasty_moments_before_a_database(
    undisturbed: dict[int, Any], tmp_path: Path, uri: str, cluster: dict[str, str]
) -> None:
    die_and_finish(tmp_path, BEFORE_A_DATABASE, **cluster)
    assert table(uri) == undisturbed
    assert versions(uri) == 1
