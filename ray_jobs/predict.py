"""Scores a table with the registered champion: its columns, `label`, `probability_<class>`.

python -m ray_jobs.predict --input table.parquet --output scored.parquet
python -m ray_jobs.predict --input table.csv --output scored.csv --alias candidate
python -m ray_jobs.predict --version 3 --keep_columns false --overwrite
RAY_ADDRESS=auto python -m ray_jobs.predict                            # by a cluster's workers
"""

from __future__ import annotations

import sys
from typing import Any

from mlops.console import leave, run_job
from mlops.serving.batch import batch
from mlops.settings import flags
from mlops.settings.serving import PredictSettings


def main(argv: list[str]) -> dict[str, Any]:
    """Scores the table that the flags name."""
    given = flags.load(PredictSettings, argv, name="predict", description=__doc__ or "")
    job = batch.Job(
        model_name=given.tracking.model_name,
        version=given.alias if given.version is None else given.version,
        **given.model_dump(exclude={"alias", "version", "tracking"}),
    )
    return batch.run(job, given.tracking)


if __name__ == "__main__":
    leave(run_job(lambda: main(sys.argv[1:]), left="nothing was written"))
