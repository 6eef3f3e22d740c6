"""Tunes a multilayer perceptron on a table.

python -m ray_jobs.tune                                          # a synthetic table, 20 trials
python -m ray_jobs.tune --data.path table.csv --data.target label --max_evals 200
python -m ray_jobs.tune --max_evals 4 --epochs 2                 # a tiny one, to see it work
python -m ray_jobs.tune --study NAME --resume                    # what is left of it
python -m ray_jobs.tune --study NAME --resume --max_evals 400    # and more
python -m ray_jobs.tune --address http://127.0.0.1:8265          # on a Ray cluster
"""

from __future__ import annotations

import sys
from typing import Any

from mlops.cluster import submission
from mlops.console import leave, run_job
from mlops.settings import flags
from mlops.settings.study import TuneSettings
from mlops.tracking.store.store import resolve_uri
from mlops.tuning import study

# Settings that a plan has too.
AS_GIVEN = {"max_evals", "pack_size", "metric", "seed", "max_failures", "time_budget", "target"}
AS_GIVEN |= {"trial_timeout", "no_worker_timeout", "checkpoint_every"}
AS_GIVEN |= {"storage", "resume", "address"}


def main(argv: list[str]) -> dict[str, Any]:
    """Runs the study that the flags describe."""
    given = flags.load(
        TuneSettings,
        argv,
        name="tune",
        description=__doc__ or "",
        recorded=lambda given: study.recorded_settings(given.study, given.tracking),
    )
    if there := submission.destination(given.address):
        return submission.run("tune", argv, there, resolve_uri(given.tracking.uri))
    name = given.study or study.name_by_time("tune")
    plan = study.Plan(
        name=name,
        default=given.default_configuration,
        space=given.search_space,
        algorithm=given.search.algorithm,
        initial_points=given.search.initial_points,
        eta=given.pruning.eta,
        min_epochs=given.pruning.min_epochs,
        again=flags.again("tune", argv, study=name),
        **given.resources.model_dump(),
        **given.model_dump(include=AS_GIVEN),
    )
    return study.run(plan, given.data, given.tracking, given.model_dump())


if __name__ == "__main__":
    leave(run_job(lambda: main(sys.argv[1:])))
