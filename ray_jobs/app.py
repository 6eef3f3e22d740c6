"""Serves the registered champion with a page to try it in a browser.

python -m ray_jobs.app
python -m ray_jobs.app --port 8080
python -m ray_jobs.app --cpus_per_replica 0.1        # a tiny one, beside other work
"""

from __future__ import annotations

import sys
from typing import Any

from mlops.console import leave, run_job
from mlops.serving import deployment
from mlops.settings import flags
from mlops.settings.serving import AppSettings


def main(argv: list[str]) -> dict[str, Any]:
    """Runs the endpoint that the flags describe."""
    given = flags.load(AppSettings, argv, name="app", description=__doc__ or "")
    return deployment.serve(given)


if __name__ == "__main__":
    leave(run_job(lambda: main(sys.argv[1:])))
