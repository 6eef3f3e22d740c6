"""(a) One after another: hyperopt's `fmin`, a nested MLflow run a trial, a `DataLoader`.

    python -m benchmarks.comparators.sequential --trials 2 --workdir /tmp/sequential

The last line of stdout is a JSON object. Settings a user might vary, and the one taken here:

- torch threads: 1. Measured: with 2 threads on 2 cores the same trials took 7 to 48% longer; the
  matrices are too small to share out.
- per-epoch metrics go through one `log_metrics` call an epoch, not one `log_metric` a value.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import torch
from hyperopt import STATUS_OK, Trials, fmin, hp, space_eval, tpe

from benchmarks.comparators import seed_task

SPACE = {
    "hidden_dims": hp.choice("hidden_dims", seed_task.HIDDEN_DIMS),
    "batch_size": hp.choice("batch_size", seed_task.BATCH_SIZES),
    "lr": hp.loguniform("lr", *(math.log(bound) for bound in seed_task.LEARNING_RATE)),
    "dropout": hp.uniform("dropout", *seed_task.DROPOUT),
    "weight_decay": hp.loguniform(
        "weight_decay", *(math.log(bound) for bound in seed_task.WEIGHT_DECAY)
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="hyperopt fmin with nested MLflow runs")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="torch threads; 0: torch's default")
    args = parser.parse_args()
    args.workdir.mkdir(parents=True, exist_ok=True)
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)

    data = seed_task.load_data()
    mlflow.set_tracking_uri(f"sqlite:///{args.workdir.resolve()}/mlflow.db")
    mlflow.set_experiment("sequential")
    batch_sizes: list[int] = []

    def objective(config: dict[str, Any]) -> dict[str, Any]:
        batch_sizes.append(config["batch_size"])
        with mlflow.start_run(nested=True):
            mlflow.log_params(config)
            best = seed_task.train(
                config,
                data,
                seed_task.loader_batches,
                on_epoch=lambda epoch, metrics: mlflow.log_metrics(metrics, step=epoch),
            )
        return {"loss": -best, "status": STATUS_OK}

    started = time.perf_counter()
    trials = Trials()
    with mlflow.start_run():
        best = fmin(
            objective,
            SPACE,
            algo=tpe.suggest,
            max_evals=args.trials,
            trials=trials,
            rstate=np.random.default_rng(args.seed),
        )
        mlflow.log_metric("best_val_accuracy", -trials.best_trial["result"]["loss"])
    summary = {
        "trials": len(trials),
        "best": {
            "val_accuracy": -trials.best_trial["result"]["loss"],
            "config": space_eval(SPACE, best),
        },
        "study_seconds": time.perf_counter() - started,
        "gradient_steps": seed_task.gradient_steps(batch_sizes),
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
