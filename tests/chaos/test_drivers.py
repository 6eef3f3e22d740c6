"""What a user does to a study: two drivers, kill, Ctrl-C once and twice, more trials."""

from __future__ import annotations

import random
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from chaos_harness import finish, start, start_with, table, versions

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_two_drivers(tmp_path: Path, cluster: dict[str, str]) -> None:
    long = ["--max_evals", "4000"]
    driver = start(tmp_path, *long, **cluster)
    driver.wait_until_recorded()
    again = finish(tmp_path, *long, status=2, **cluster)
    assert "must be a new name, got `chaos`" in again.said()
    assert "--resume" in again.said()
    second = finish(tmp_path, *long, "--resume", status=2, **cluster)
    assert f"got one already, process {driver.process.pid}" in second.said()
    assert driver.process.poll() is None, driver.said()
    driver.kill()


def test_ctrl_c_once_and_twice(undisturbed: dict[int, Any], tmp_path: Path, uri: str) -> None:
    driver = start(tmp_path)
    driver.wait_until_recorded()
    driver.process.send_signal(signal.SIGINT)
    assert driver.process.wait(60) == 130, driver.said()
    assert "stopping; Ctrl-C again stops at once" in driver.said()
    assert "to go on: python -m ray_jobs.tune --study chaos" in driver.said()
    assert "Traceback" not in driver.said()
    table(uri)  # nothing is open

    going_on = start(tmp_path, "--resume")
    going_on.wait_until_recorded()
    going_on.process.send_signal(signal.SIGINT)
    going_on.wait_for("stopping")
    going_on.process.send_signal(signal.SIGINT)
    assert going_on.process.wait(20) == 130, going_on.said()

    # By its name alone: the rest is on record.
    finish(tmp_path, "--resume", "--max_evals", "40")
    assert table(uri) == undisturbed
    assert versions(uri) == 1


def test_a_study_is_extended(
    undisturbed: dict[int, Any], tmp_path: Path, uri: str, cluster: dict[str, str]
) -> None:
    finish(tmp_path, "--max_evals", "24", **cluster)
    assert len(table(uri)) == 24
    fewer = finish(tmp_path, "--resume", "--max_evals", "20", status=2, **cluster)
    assert "max_evals: must be at least what it was" in fewer.said()
    other = finish(tmp_path, "--resume", "--metric", "val_f1", "--seed", "3", status=2, **cluster)
    assert "metric: must be what it was to resume `chaos`" in other.said()
    assert "seed: must be what it was" in other.said()
    resplit = finish(tmp_path, "--resume", "--data.split_seed", "1", status=2, **cluster)
    assert "data.split_seed: must be what it was to resume `chaos`" in resplit.said()
    table_of_another = ["--data.synthetic.n_samples", "900"]
    changed = finish(tmp_path, "--resume", *table_of_another, status=2, **cluster)
    assert "data: must be the table that `chaos` was begun with" in changed.said()
    assert len(table(uri)) == 24

    # With one worker instead of two; the packs in flight are on record.
    finish(tmp_path, "--resume", "--max_evals", "40", "--resources.workers", "1", **cluster)
    assert table(uri) == undisturbed


def test_a_driver_killed_at_random_times(
    undisturbed: dict[int, Any], tmp_path: Path, uri: str, cluster: dict[str, str]
) -> None:
    moments = random.Random(0)
    resume: list[str] = []
    deaths = 0
    while deaths < 4:
        driver = start_with("LeisurelyTrial", tmp_path, *resume, **cluster)
        driver.wait_until_recorded()
        try:
            driver.process.wait(moments.uniform(0, 8))
        except subprocess.TimeoutExpired:
            driver.kill()
            deaths += 1
        else:  # it was quicker
            assert driver.process.returncode == 0, driver.said()
            break
        resume = ["--resume"]
    # Packs end in any order: the table is the same.
    driver = start_with("DelayedTrial", tmp_path, "--resume", **cluster)
    assert driver.process.wait(200) == 0, driver.said()
    assert deaths
    assert table(uri) == undisturbed
    assert versions(uri) == 1
