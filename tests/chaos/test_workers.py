"""Workers that die, of anything or of one trial: the study goes on, and its neighbours with it."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from chaos_harness import TRIALS, finish, start, start_with, table
from odd_workers import HANGS, KILLS, RAISES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

HERE = Path(__file__).parent


def workers(driver: int) -> list[psutil.Process]:
    """The processes in which packs train."""
    found = []
    for process in psutil.Process(driver).children(recursive=True):
        with suppress(psutil.Error):
            title = process.cmdline()[:1]
            if title and title[0].startswith("ray::") and ".train" in title[0]:
                found.append(process)
    return found


def test_a_worker_killed_every_few_seconds(
    undisturbed: dict[int, Any], tmp_path: Path, uri: str
) -> None:
    driver = start(tmp_path, "--max_failures", "1000")
    killed: set[int] = set()
    driver.wait_for("/40 trials")
    while driver.process.poll() is None:
        with suppress(psutil.Error):
            for worker in workers(driver.process.pid)[:1]:
                worker.kill()
                killed.add(worker.pid)
                time.sleep(5)
        time.sleep(0.1)
    assert driver.process.returncode == 0, driver.said()
    assert killed
    assert table(uri) == undisturbed


def test_workers_that_stand_still_or_die_between_packs(
    undisturbed: dict[int, Any], tmp_path: Path, uri: str
) -> None:
    """That is no reason to give a trial up, or to try those of its pack alone."""
    mishaps = tmp_path / "mishaps"
    mishaps.mkdir()
    driver = start_with("UnluckyTrial", tmp_path, "--trial_timeout", "8", CHAOS=str(mishaps))
    assert driver.process.wait(300) == 0, driver.said()
    assert len([*mishaps.iterdir()]) == 4
    assert table(uri) == undisturbed


def test_workers_that_died_idle_do_not_count(
    undisturbed: dict[int, Any], tmp_path: Path, uri: str
) -> None:
    """As those of a machine that is lost: a pack might be handed to one after the other."""
    mishaps = tmp_path / "mishaps"
    mishaps.mkdir()
    driver = start_with("ShortLivedTrial", tmp_path, "--max_failures", "0", CHAOS=str(mishaps))
    assert driver.process.wait(300) == 0, driver.said()
    assert len([*mishaps.iterdir()]) == 3
    assert "is started again" in driver.said()
    assert table(uri) == undisturbed


def test_poisonous_trials_take_no_neighbour_with_them(
    undisturbed: dict[int, Any], tmp_path: Path, uri: str
) -> None:
    flags = ["--max_failures", "1", "--trial_timeout", "5"]
    driver = start_with("PoisonedTrial", tmp_path, *flags)
    assert driver.process.wait(400) == 0, driver.said()
    found = table(uri)
    assert len(found) == TRIALS
    reasons = {number: row[2] for number, row in found.items() if row[1] != "completed"}
    assert sorted(reasons) == sorted([KILLS, RAISES, HANGS])
    assert "its worker process has died" in reasons[KILLS]
    assert "on purpose" in reasons[RAISES]
    assert "its worker process has died" in reasons[HANGS]
    # Up to the pack that hears of the first one's score, the study is the same.
    settled = [n for n in range(12) if n not in reasons]
    assert [found[n][0] for n in settled] == [undisturbed[n][0] for n in settled]


def test_budgets_end_a_study_tidily_and_it_can_go_on(
    undisturbed: dict[int, Any], tmp_path: Path, uri: str
) -> None:
    first = max(value for _, value in undisturbed[0][-1]["val_accuracy"])
    driver = finish(tmp_path, "--target", str(first))
    assert "is now champion" in driver.said()
    stopped = table(uri)
    assert any(row[1] == "interrupted" for row in stopped.values()) or len(stopped) < TRIALS
    assert all("target was reached" in row[2] for row in stopped.values() if row[2])
    finish(tmp_path, "--resume")
    assert table(uri) == undisturbed
