"""Creates or checks the MLflow store and the experiment; harmless when repeated.

python -m ray_jobs.init_mlflow
MLFLOW_TRACKING_URI=http://127.0.0.1:5000 python -m ray_jobs.init_mlflow
"""

from __future__ import annotations

import sys
from typing import Any

from mlops.console import leave, run_job
from mlops.settings import flags
from mlops.settings.setup import InitMlflowSettings
from mlops.tracking.store.store import open_store


def main(argv: list[str]) -> dict[str, Any]:
    """Opens the store and says where it is."""
    given = flags.load(InitMlflowSettings, argv, name="init_mlflow", description=__doc__ or "")
    store = open_store(given.tracking.uri, given.tracking.experiment)
    print(f"store      {store.display_uri}", file=sys.stderr)
    print(f"experiment {store.experiment_name} (id {store.experiment_id})", file=sys.stderr)
    print(f"artifacts  {store.artifact_location}", file=sys.stderr)
    return {
        "tracking_uri": store.display_uri,
        "experiment": store.experiment_name,
        "experiment_id": store.experiment_id,
        "artifact_location": store.artifact_location,
    }


if __name__ == "__main__":
    leave(run_job(lambda: main(sys.argv[1:])))
