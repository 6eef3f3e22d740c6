"""Writes a synthetic classification table: columns feature_0, feature_1, ... and target.

python -m ray_jobs.generate_data --output data/synthetic.parquet
python -m ray_jobs.generate_data --n_samples 50000 --n_classes 5 --label_noise 0.1 --output big.csv
python -m ray_jobs.generate_data --n_samples 100 --output tiny.csv
"""

from __future__ import annotations

import sys
from typing import Any

from mlops.console import leave, run_job
from mlops.settings import flags
from mlops.settings.setup import GenerateDataSettings


def main(argv: list[str]) -> dict[str, Any]:
    """Generates the table and records it as an MLflow dataset."""
    given = flags.load(GenerateDataSettings, argv, name="generate_data", description=__doc__ or "")
    from mlops.data.synthetic import SyntheticSpec, check_output, make_table, write_table
    from mlops.tracking.store.store import explained, open_store
    from mlops.tracking.study.dataset import log_generated

    spec = SyntheticSpec(**given.model_dump(exclude={"output", "overwrite", "tracking"}))
    check_output(given.output, overwrite=given.overwrite)
    frame = make_table(spec)
    store = open_store(given.tracking.uri, given.tracking.experiment)
    write_table(frame, given.output)
    recorded = given.model_dump(exclude={"overwrite", "tracking"})
    with explained(store):
        run_id = log_generated(
            store, "generate_data", frame, given.output, spec.describe(), recorded
        )
    print(f"wrote {len(frame):,} rows to {given.output}", file=sys.stderr)
    return {"output": given.output, "rows": len(frame), "columns": frame.shape[1], "run_id": run_id}


if __name__ == "__main__":
    leave(run_job(lambda: main(sys.argv[1:])))
