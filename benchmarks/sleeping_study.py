"""`ray_jobs.tune` on logical workers that sleep, and a timeline: what `scaling.py` runs.

python -m benchmarks.sleeping_study WORKERS [flags of ray_jobs.tune]

The cluster is one of several raylets on this machine, of one logical core a worker. Everything but
the training is real: the searcher is told scores, every epoch is recorded, and the best trial's
model, of weights drawn at random, is registered. `SLEEP_SECONDS` says how long a pack takes.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import ray
from ray.cluster_utils import Cluster
from safetensors.numpy import save

from benchmarks import scheduled_study
from mlops.console import leave, run_job
from mlops.nn.records import METRIC_NAMES
from mlops.tuning.trial import PackOptions, PackTrial, SharedRows

CORES_A_NODE = 8


class SleepingTrial(PackTrial):
    """Sleeps for the time of a pack, telling of its trials' epochs once a second.

    It imports no torch: what a worker's start costs on one machine is not what is measured.
    """

    def setup(self, config: dict[str, Any], rows: SharedRows, options: PackOptions) -> None:
        self._width = ray.get(rows.arrays)[0].shape[1]
        self._classes = rows.n_classes
        self._spans: list[tuple[int, float, float]] = []
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._sleeping = self._sleep([t for t in new_config["trials"] if not t["duplicate_of"]])
        return True

    def step(self) -> dict[str, Any]:
        return next(self._sleeping)

    def _sleep(self, trials: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        seconds = float(os.environ["SLEEP_SECONDS"])
        steps = max(1, round(seconds))
        scores = {t["number"]: float(np.random.default_rng(t["number"]).uniform()) for t in trials}
        for step in range(1, steps + 1):
            began = time.monotonic()
            time.sleep(seconds / steps if trials else 0.0)
            spans = [(os.getpid(), began, time.monotonic())]
            records = [
                {"trial": number, "epoch": step, **dict.fromkeys(METRIC_NAMES, score)}
                for number, score in scores.items()
            ]
            report = {"records": records, "results": [], "scores": [], "done": step == steps}
            if step == steps:
                report["results"] = [_result(n, score, steps) for n, score in scores.items()]
                report["scores"] = [[n, score] for n, score in scores.items()]
                if scores:
                    report["best"] = self._best(trials, scores)
            yield {**report, "spans": spans}

    def _best(self, trials: list[dict[str, Any]], scores: dict[int, float]) -> dict[str, Any]:
        best = max(trials, key=lambda trial: scores[trial["number"]])
        widths = [self._width, *best["params"]["hidden_dims"], self._classes]
        weights = {}
        for i, (n_in, n_out) in enumerate(pairwise(widths)):
            draw = np.random.default_rng(i)
            weights[f"layers.{i}.weight"] = draw.normal(size=(n_out, n_in)).astype(np.float32)
            weights[f"layers.{i}.bias"] = np.zeros(n_out, np.float32)
        return {"trial": best["number"], "weights": save(weights)}


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
