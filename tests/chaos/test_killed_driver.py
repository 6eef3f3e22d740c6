"""A driver killed at any moment: the study goes on as if it had not been."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from chaos_harness import Driver, finish, start, table, versions

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

HERE = Path(__file__).parent
WRITER = "mlops.tracking.writer:RunWriter"
RUN = "mlops.tracking.study_run:StudyRun"
# (function, which call of it, whether it has been carried out). Each line is one study's deaths.
MOMENTS = [
    [
        (f"{RUN}._log_settings", 1, "before"),  # the study's run has just been made
        (f"{WRITER}._create", 3, "after"),  # a child run without its params
        (f"{WRITER}._send", 9, "before"),  # in the middle of a flush
        ("mlops.tracking.study_run:log_model", 1, "before"),
        ("mlops.tracking.study_run:log_model", 1, "after"),  # a model, not yet registered
    ],
    [
        ("mlops.tracking.writer:log_batch", 5, "after"),  # values, but the run not ended
        (f"{WRITER}._send_file", 1, "after"),
        (f"{WRITER}._open_again", 1, "after"),
        ("mlops.tracking.registry:register", 1, "after"),
        ("mlops.tracking.promotion:_crown", 1, "before"),
    ],
    [
        ("mlops.tracking.spool:Spool.add", 12, "before"),
        ("mlops.tracking.spool:Spool.add", 14, "after"),
        ("mlops.tracking.registry:_link_version", 1, "before"),
        ("mlops.tracking.promotion:_crown", 1, "after"),
        (f"{RUN}.end", 1, "before"),
    ],
]


def die(folder: Path, moment: tuple[str, int, str], resume: list[str]) -> Driver:
    target, call, when = moment
    program = [str(HERE / "dying_job.py"), target, str(call), when]
    driver = start(folder, *resume, program=program)
    status = driver.process.wait(300)
    assert status == -signal.SIGKILL, f"{moment} never came: {driver.said()}"
    return driver


@pytest.mark.parametrize("deaths", MOMENTS, ids=["making", "sending", "ending"])
def test_at_the_nasty_moments(
    deaths: list[tuple[str, int, str]], undisturbed: dict[int, Any], tmp_path: Path, uri: str
) -> None:
    resume: list[str] = []
    for moment in deaths:
        die(tmp_path, moment, resume)
        resume = ["--resume"]
    finish(tmp_path, "--resume")
    assert table(uri) == undisturbed
    assert versions(uri) == 1
    assert not (tmp_path / "studies").exists()
