"""Serves the registered champion over HTTP until interrupted.

python -m ray_jobs.serve
python -m ray_jobs.serve --port 8080 --replicas 2
python -m ray_jobs.serve --cpus_per_replica 0.1      # a tiny one, beside other work
"""

from __future__ import annotations

import sys
from typing import Any

from mlops.console import leave, run_job
from mlops.serving import deployment
from mlops.settings import flags
from mlops.settings.serving import ServeSettings


def main(argv: list[str]) -> dict[str, Any]:
    """Runs the endpoint that the flags describe."""
    given = flags.load(ServeSettings, argv, name="serve", description=__doc__ or "")
    return deployment.serve(given)


if __name__ == "__main__":
    leave(run_job(lambda: main(sys.argv[1:])))
