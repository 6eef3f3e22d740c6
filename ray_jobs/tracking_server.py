"""Serves the record to a team: `mlflow server` over PostgreSQL, until interrupted.

python -m ray_jobs.tracking_server
python -m ray_jobs.tracking_server --folder /srv/mlflow --artifacts s3://bucket/mlflow
python -m ray_jobs.tracking_server --host 0.0.0.0 --authentication true

The administrator's name and password are MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD.
"""

from __future__ import annotations

import sys
from typing import Any

from mlops.console import leave, run_job
from mlops.settings import flags
from mlops.settings.setup import TrackingServerSettings
from mlops.tracking.server.server import Server, serve


def main(argv: list[str]) -> dict[str, Any]:
    """Serves what the flags describe."""
    given = flags.load(
        TrackingServerSettings, argv, name="tracking_server", description=__doc__ or ""
    )
    serve(Server(**given.model_dump()))


if __name__ == "__main__":
    leave(run_job(lambda: main(sys.argv[1:]), left="the record is kept"))
