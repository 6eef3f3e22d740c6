"""`ray_jobs.tune` on logical workers that sleep, and a timeline: what `scaling.py` runs.

python -m benchmarks.sleeping_study WORKERS [flags of ray_jobs.tune]

The cluster is one of several raylets on this machine, of one logical core a worker. Everything but
the training is real: the searcher is told scores, every epoch is recorded, and the best trial's
model, of weights drawn at random, is registered. `SLEEP_SECONDS` says how long a pack takes
in the middle, `SLEEP_EPOCH` how long an epoch, a second unless it says so.
"""

from __future__ import annotations

import os
import sys
import time
from itertools import pairwise
from typing import Any

import numpy as np
import ray
from ray.cluster_utils import Cluster
from safetensors.numpy import save

from benchmarks import scheduled_study
from mlops.console import leave, run_job
from mlops.nn.records import METRIC_NAMES
from mlops.tuning.training.options import PackOptions, SharedRows
from mlops.tuning.training.trial import PackTrial

CORES_A_NODE = 8


class SleepingTrial(PackTrial):
    """Sleeps for the time of a pack, telling of its trials' epochs as packs report.

    It imports no torch: what a worker's start costs on one machine is not what is measured.
    """

    def setup(self, config: dict[str, Any], rows: SharedRows, options: PackOptions) -> None:
        self._width = ray.get(rows.arrays)[0].shape[1]
        self._classes = rows.task.n_outputs
        self._every = options.report_every
        self.worker = os.getpid()
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._trials = [t for t in new_config["trials"] if t["duplicate_of"] is None]
        self._slept, self._seconds = 0.0, _seconds(new_config["pack"])
        self._epoch = float(os.environ.get("SLEEP_EPOCH", "1"))
        return True

    def next_sleep(self) -> float:
        """Seconds until the next report."""
        return min(self._every, self._seconds - self._slept) if self._trials else 0.0

    def sleep(self) -> None:
        """Lets them pass."""
        time.sleep(self.next_sleep())

    def step(self) -> dict[str, Any]:
        began = time.monotonic()
        self.sleep()
        return self.told((self.worker, began, time.monotonic()))

    def told(self, span: tuple[int, float, float]) -> dict[str, Any]:
        """Makes a report of what was slept."""
        first = int(self._slept / self._epoch) + 1
        self._slept += self.next_sleep()
        done = not self._trials or self._slept >= self._seconds
        epochs = max(1, round(self._seconds / self._epoch))
        last = epochs if done else int(self._slept / self._epoch)
        scores = {t["number"]: _score(t["number"]) for t in self._trials}
        records = [
            {"trial": number, "epoch": epoch, **dict.fromkeys(METRIC_NAMES, score)}
            for epoch in range(first, last + 1)
            for number, score in scores.items()
        ]
        report = {"records": records, "results": [], "scores": [], "done": done, "spans": [span]}
        if done:
            report["results"] = [_result(n, score, epochs) for n, score in scores.items()]
            report["scores"] = [[n, score] for n, score in scores.items()]
            if scores:
                report["best"] = self._best(self._trials, scores)
        return report

    def _best(self, trials: list[dict[str, Any]], scores: dict[int, float]) -> dict[str, Any]:
        best = max(trials, key=lambda trial: scores[trial["number"]])
        widths = [self._width, *best["params"]["hidden_dims"], self._classes]
        weights = {}
        for i, (n_in, n_out) in enumerate(pairwise(widths)):
            draw = np.random.default_rng(i)
            weights[f"layers.{i}.weight"] = draw.normal(size=(n_out, n_in)).astype(np.float32)
            weights[f"layers.{i}.bias"] = np.zeros(n_out, np.float32)
        return {"trial": best["number"], "weights": save(weights)}


def _seconds(pack: int) -> float:
    """Packs differ, so that workers do not stay in step."""
    share = np.random.default_rng(pack).uniform(0.5, 1.5)
    return float(os.environ["SLEEP_SECONDS"]) * share


def _score(number: int) -> float:
    return float(np.random.default_rng(number).uniform())


def _result(number: int, score: float, epochs: int) -> dict[str, Any]:
    return {
        "trial": number,
        "outcome": "completed",
        "reason": None,
        "epochs": epochs,
        "best_epoch": epochs,
        "score": score,
        "metrics": dict.fromkeys(METRIC_NAMES, score),
        "seconds": 0.0,
        "node": "simulated",
        "device": "none",
    }


def main(argv: list[str]) -> dict[str, Any]:
    workers, flags = int(argv[0]), argv[1:]
    scheduled_study.TimedTrial = SleepingTrial  # type: ignore[misc]
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        for _ in range(-(-workers // CORES_A_NODE)):
            cluster.add_node(num_cpus=min(workers, CORES_A_NODE))
        address = ["--address", cluster.address, "--resources.workers", str(workers)]
        return scheduled_study.main([*flags, *address])
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    leave(run_job(lambda: main(sys.argv[1:])))
