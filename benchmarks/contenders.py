"""The commands that `run.py` times against each other, each in a fresh folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
SEED_TASK = REPOSITORY / "configs" / "examples" / "seed.yaml"


@dataclass(frozen=True)
class Contender:
    """A way to run the study.

    Args:
        command: Makes the command line from the number of trials and the seed.
        targets: How many times faster ours is to be, by number of trials.
    """

    name: str
    title: str
    command: Callable[[int, int], list[str]]
    targets: dict[int, float]


def ours(trials: int, seed: int) -> list[str]:
    """Command of the study under test."""
    job = [sys.executable, "-m", "ray_jobs.tune", "--config", str(SEED_TASK)]
    return [*job, "--max_evals", str(trials), "--seed", str(seed)]


def comparator(module: str) -> Callable[[int, int], list[str]]:
    """Make the command of a comparator; its folder is the working directory."""

    def command(trials: int, seed: int) -> list[str]:
        job = [sys.executable, "-m", f"benchmarks.comparators.{module}", "--workdir", "."]
        return [*job, "--trials", str(trials), "--seed", str(seed)]

    return command


CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender("ours", "`ray_jobs.tune`", ours, {}),
        Contender(
            "a",
            "(a) sequential: `fmin`, nested MLflow runs, DataLoader",
            comparator("sequential"),
            {20: 3.0, 200: 10.0},
        ),
        Contender(
            "b",
            "(b) plain Ray Tune, HyperOptSearch, MLflowLoggerCallback",
            comparator("plain_tune"),
            {20: 10.0},
        ),
        Contender(
            "c",
            "(c) Optuna, two processes, index batches, no MLflow",
            comparator("optuna_two_processes"),
            {200: 4.0},
        ),
    )
}


def environment() -> dict[str, str]:
    """Environment of every contender: the caller's, without what would tie runs together."""
    variables = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MLFLOW_", "RAY_")) and name != "OMP_NUM_THREADS"
    }
    # Never a cluster that happens to run here, no telemetry from anyone.
    return variables | {
        "PYTHONPATH": str(REPOSITORY),
        "RAY_ADDRESS": "local",
        "RAY_USAGE_STATS_ENABLED": "0",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
