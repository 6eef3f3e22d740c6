"""What the chaos tests share: a study as a command, and what MLflow says of it afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops.nn.records import METRIC_NAMES
from mlops.tracking.store.store import open_store

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TRIALS = 40
# Packs of four trials: ten of them, so that a driver dies with some done, some under way.
STUDY = ["--study", "chaos", "--max_evals", str(TRIALS), "--epochs", "16", "--pack_size", "4"]
STUDY += ["--resources.workers", "2"]


def environment(**variables: str) -> dict[str, str]:
    """The environment of a user who has set nothing."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_", "MLOPS_"))}
    return {**kept, "PYTHONPATH": str(ROOT), **variables}


@dataclass
class Driver:
    """A running job; its messages go to a file."""

    process: subprocess.Popen[bytes]
    log: Path

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, text: str, seconds: float = 120) -> None:
        """Waits until it has said something, or has ended."""
        deadline = time.monotonic() + seconds
        while text not in self.said() and self.process.poll() is None:
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.05)

    def wait_until_recorded(self, seconds: float = 120) -> None:
        """Waits until the study's run is there, and trials are about to begin."""
        deadline = time.monotonic() + seconds
        spool = self.log.parent / "studies" / "chaos" / "record.jsonl"
        while not (spool.exists() and "trials" in self.said()):
            assert time.monotonic() < deadline and self.process.poll() is None, self.said()
            time.sleep(0.05)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def start(
    folder: Path,
    *flags: str,
    program: list[str] | None = None,
    log_folder: Path | None = None,
    **variables: str,
) -> Driver:
    """Starts a study in a folder."""
    words = [sys.executable, *(program or ["-m", "ray_jobs.tune"]), *STUDY, *flags]
    log = (log_folder or folder) / f"driver-{time.monotonic_ns()}.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            words,
            cwd=folder,
            env=environment(**variables),
            stdout=subprocess.DEVNULL,
            stderr=stream,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
    return Driver(process, log)


def start_with(
    workers: str, folder: Path, *flags: str, log_folder: Path | None = None, **variables: str
) -> Driver:
    """Starts a study with workers of `odd_workers`."""
    variables["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(HERE)])
    program = [str(HERE / "odd_job.py"), workers]
    return start(folder, *flags, program=program, log_folder=log_folder, **variables)


def finish(folder: Path, *flags: str, status: int = 0, **variables: str) -> Driver:
    """Runs a study to its end."""
    driver = start(folder, *flags, **variables)
    assert driver.process.wait(300) == status, driver.said()
    return driver


def table(uri: str) -> dict[int, Any]:
    """The study's trials by number: configuration, outcome, every step of every metric.

    Fails unless each trial has one run, each step one value, and nothing is left open.
    """
    store = open_store(uri)
    client = store.client
    runs = client.search_runs([store.experiment_id], max_results=1000)
    statuses = Counter(run.info.status for run in runs)
    assert "RUNNING" not in statuses, statuses
    parents = [run for run in runs if "packs_in_flight" in run.data.tags]
    assert len(parents) == 1, "a study has one run"
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert len(runs) == 1 + len(children)
    rows: dict[int, Any] = {}
    for run in children:
        steps = {}
        for name in METRIC_NAMES:
            history = client.get_metric_history(run.info.run_id, name)
            steps[name] = sorted((point.step, point.value) for point in history)
            counted = Counter(step for step, _ in steps[name])
            assert set(counted.values()) <= {1}, f"{run.info.run_name} has steps twice"
        tags = run.data.tags
        row = (run.data.params, tags["outcome"], tags.get("reason"), tags.get("duplicate_of"))
        number = int(tags["trial"])
        assert number not in rows, f"trial {number} has two runs"
        rows[number] = (*row, steps)
    return rows


def versions(uri: str) -> int:
    """How many versions of the model there are."""
    store = open_store(uri)
    found = store.client.search_model_versions("name = 'mlp'")
    return len(found)
