"""Workers that die, of anything or of one trial: the study goes on, and its neighbours with it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from chaos_harness import ROOT, TRIALS, finish, start, table
from poison import POISONOUS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

HERE = Path(__file__).parent


def workers(driver: int) -> list[psutil.Process]:
    """The processes in which packs train."""
    found = []
    for process in psutil.Process(driver).children(recursive=True):
        try:
            if process.name().startswith("ray::PackTrial") or any(
                "ray::PackTrial" in word for word in process.cmdline()
            ):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_a_worker_killed_every_few_seconds(
    undisturbed: dict[int, Any], tmp_path: Path, uri: str
) -> None:
    driver = start(tmp_path, "--max_failures", "20")
    killed = 0
    while driver.process.poll() is None:
        driver.wait_for("/40 trials")
        time.sleep(3)
        for worker in workers(driver.process.pid)[:1]:
            worker.send_signal(signal.SIGKILL)
            killed += 1
    assert driver.process.returncode == 0, driver.said()
    assert killed
    assert table(uri) == undisturbed


@pytest.mark.parametrize("how", ["kill", "raise", "hang"])
def test_one_poisonous_trial_takes_no_neighbour_with_it(
    how: str, undisturbed: dict[int, Any], tmp_path: Path, uri: str
) -> None:
    path = os.pathsep.join([str(ROOT), str(HERE)])
    program = [str(HERE / "poisoned_job.py")]
    flags = ["--max_failures", "1", *(["--trial_timeout", "5"] if how == "hang" else [])]
    driver = start(tmp_path, *flags, program=program, POISON=how, PYTHONPATH=path)
    assert driver.process.wait(400) == 0, driver.said()
    found = table(uri)
    assert len(found) == TRIALS
    failed = {number: row[2] for number, row in found.items() if row[1] != "completed"}
    assert list(failed) == [POISONOUS]
    assert "its worker failed" in failed[POISONOUS]
    assert ("on purpose" in failed[POISONOUS]) == (how == "raise")
    # Up to the pack that would have heard of its score, the study is the same.
    settled = [n for n in range(8) if n != POISONOUS]
    assert [found[n][0] for n in settled] == [undisturbed[n][0] for n in settled]


def test_budgets_end_a_study_tidily_and_it_can_go_on(
    undisturbed: dict[int, Any], tmp_path: Path, uri: str
) -> None:
    best = max(row[-1]["val_accuracy"] for row in undisturbed.values())
    first = max(value for _, value in undisturbed[0][-1]["val_accuracy"])
    assert best
    driver = finish(tmp_path, "--target", str(first))
    assert "is now champion" in driver.said()
    stopped = table(uri)
    assert any(row[1] == "interrupted" for row in stopped.values()) or len(stopped) < TRIALS
    assert all("target was reached" in row[2] for row in stopped.values() if row[2])
    finish(tmp_path, "--resume")
    assert table(uri) == undisturbed
