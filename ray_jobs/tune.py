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


def main(argv: list[str]) -> dict[str, Any]:
    """Runs the study that the flags describe."""
    given = flags.load(
        TuneSettings, argv, name="tune", description=__doc__ or "", recorded=_recorded
    )
    if there := submission.destination(given.address):
        return submission.run("tune", argv, there, resolve_uri(given.tracking.uri))
    from mlops.tuning import plan, study

    name = given.study or plan.name_by_time("tune")
    again = flags.again("tune", argv, study=name)
    kept = (given.storage, given.checkpoint_every, given.resume, again)
    planned = plan.Plan(
        name,
        given.data,
        plan.Search(given.default_configuration, given.search_space, given.max_evals, given.search),
        plan.Keeping(given.tracking, given.model_dump(), *kept),
        plan.Training(given.metric, given.seed, given.pack_size, given.pruning),
        plan.Crew(given.resources, given.address, given.max_failures, given.trial_timeout),
        plan.End(given.time_budget, given.target, given.no_worker_timeout),
    )
    return study.run(planned)


def _recorded(given: TuneSettings) -> dict[str, Any]:
    from mlops.tuning.resuming import recorded_settings

    return recorded_settings(given.study, given.tracking)


if __name__ == "__main__":
    leave(run_job(lambda: main(sys.argv[1:])))
