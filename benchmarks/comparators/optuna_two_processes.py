"""(c) Optuna: two worker processes on one study, batches by indexing, no MLflow.

    python -m benchmarks.comparators.optuna_two_processes --trials 2 --workdir /tmp/optuna

The last line of stdout is a JSON object. Settings a user might vary, and the one taken here:

- storage: Optuna's journal file; measured 9 ms a trial where SQLite took 66.
- one torch thread a process, one process a core.
- `MaxTrialsCallback` shares the trials out as they come, so that neither process waits long for
  the other at the end, as it would if each had half of them.
- the workers are forked: torch is imported once.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import MaxTrialsCallback
from optuna.trial import TrialState

from benchmarks.comparators import seed_task

STUDY = "seed-task"


def suggest(trial: optuna.Trial) -> dict[str, Any]:
    # Optuna's categories are plain values: lists go in by name.
    widths = {",".join(map(str, dims)): dims for dims in seed_task.HIDDEN_DIMS}
    return {
        "hidden_dims": widths[trial.suggest_categorical("hidden_dims", list(widths))],
        "batch_size": trial.suggest_categorical("batch_size", seed_task.BATCH_SIZES),
        "lr": trial.suggest_float("lr", *seed_task.LEARNING_RATE, log=True),
        "dropout": trial.suggest_float("dropout", *seed_task.DROPOUT),
        "weight_decay": trial.suggest_float("weight_decay", *seed_task.WEIGHT_DECAY, log=True),
    }


def open_storage(workdir: Path) -> JournalStorage:
    return JournalStorage(JournalFileBackend(str(workdir / "optuna.log")))


def work(workdir: Path, data: seed_task.Data, n_trials: int, seed: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.load_study(
        study_name=STUDY,
        storage=open_storage(workdir),
        sampler=optuna.samplers.TPESampler(seed=seed),
    )

    def objective(trial: optuna.Trial) -> float:
        history: list[seed_task.Metrics] = []
        best = seed_task.train(
            suggest(trial),
            data,
            seed_task.index_batches,
            on_epoch=lambda epoch, metrics: history.append(metrics),
        )
        trial.set_user_attr("history", history)
        return best

    counted = (TrialState.RUNNING, TrialState.COMPLETE)
    study.optimize(objective, callbacks=[MaxTrialsCallback(n_trials, states=counted)])


def main() -> None:
    parser = argparse.ArgumentParser(description="Optuna, two processes sharing a study")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    args.workdir.mkdir(parents=True, exist_ok=True)

    started = time.perf_counter()
    study = optuna.create_study(
        study_name=STUDY, storage=open_storage(args.workdir), direction="maximize"
    )
    data = seed_task.load_data()
    context = multiprocessing.get_context("fork")
    workers = [
        context.Process(target=work, args=(args.workdir, data, args.trials, args.seed * 1000 + i))
        for i in range(args.processes)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    completed = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    summary = {
        "trials": len(completed),
        "best": {"val_accuracy": study.best_value, "config": study.best_params},
        "study_seconds": time.perf_counter() - started,
        "gradient_steps": seed_task.gradient_steps([t.params["batch_size"] for t in completed]),
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
