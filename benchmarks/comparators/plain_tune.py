"""(b) Plain Ray Tune: function trainable, HyperOptSearch, the stock MLflow callback, defaults.

    python -m benchmarks.comparators.plain_tune --trials 2 --workdir /tmp/plain_tune

The last line of stdout is a JSON object. What Ray's own pages show for this combination: the data
by `tune.with_parameters`, one report an epoch, one cpu a trial (where Ray itself keeps torch at
one thread). Only the places of the results and of the MLflow store are named.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.search.hyperopt import HyperOptSearch

from benchmarks.comparators import seed_task


def train(config: dict[str, Any], data: seed_task.Data) -> None:
    seed_task.train(
        config,
        data,
        seed_task.loader_batches,
        on_epoch=lambda epoch, metrics: tune.report(metrics),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Ray Tune with HyperOptSearch and MLflow")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.workdir.mkdir(parents=True, exist_ok=True)

    started = time.perf_counter()
    tuner = tune.Tuner(
        tune.with_parameters(train, data=seed_task.load_data()),
        param_space={
            "hidden_dims": tune.choice(seed_task.HIDDEN_DIMS),
            "batch_size": tune.choice(seed_task.BATCH_SIZES),
            "lr": tune.loguniform(*seed_task.LEARNING_RATE),
            "dropout": tune.uniform(*seed_task.DROPOUT),
            "weight_decay": tune.loguniform(*seed_task.WEIGHT_DECAY),
        },
        tune_config=tune.TuneConfig(
            metric="val_accuracy",
            mode="max",
            num_samples=args.trials,
            search_alg=HyperOptSearch(random_state_seed=args.seed),
        ),
        run_config=tune.RunConfig(
            storage_path=str(args.workdir.resolve() / "ray_results"),
            callbacks=[
                MLflowLoggerCallback(
                    tracking_uri=f"sqlite:///{args.workdir.resolve()}/mlflow.db",
                    experiment_name="plain-tune",
                )
            ],
        ),
    )
    results = tuner.fit()
    best = results.get_best_result(scope="all")
    summary = {
        "trials": len(results),
        "best": {
            "val_accuracy": best.metrics_dataframe["val_accuracy"].max(),
            "config": best.config,
        },
        "study_seconds": time.perf_counter() - started,
        "gradient_steps": seed_task.gradient_steps([r.config["batch_size"] for r in results]),
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
