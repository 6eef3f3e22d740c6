"""Trains one configuration on a table: a study of one trial.

python -m ray_jobs.train
python -m ray_jobs.train --hidden_dims "[128, 64]" --lr 0.003 --epochs 20
python -m ray_jobs.train --data.path table.csv --data.target label --epochs 1   # a tiny one
"""

from __future__ import annotations

import sys
from typing import Any

from mlops.cluster import submission
from mlops.console import leave, run_job
from mlops.settings import flags
from mlops.settings.study import TrainSettings
from mlops.tracking.store.store import resolve_uri


def main(argv: list[str]) -> dict[str, Any]:
    """Trains the configuration that the flags describe."""
    given = flags.load(TrainSettings, argv, name="train", description=__doc__ or "")
    if there := submission.destination(given.address):
        return submission.run("train", argv, there, resolve_uri(given.tracking.uri))
    from mlops.tuning import plan, study

    planned = plan.Plan(
        given.study or plan.name_by_time("train"),
        given.data,
        plan.Search(given.hyperparameters),
        plan.Keeping(given.tracking, given.model_dump()),
        plan.Training(given.metric, given.seed),
        plan.Crew(given.resources, given.address),
    )
    return study.run(planned)


if __name__ == "__main__":
    leave(run_job(lambda: main(sys.argv[1:])))
