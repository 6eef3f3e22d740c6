"""The job serve with another app: python serve_echo.py make|broken --port N ..."""

from __future__ import annotations

import sys

import echo_app

from mlops.console import leave, run_job
from mlops.serving import deployment
from mlops.settings import flags
from mlops.settings.serving import ServeSettings

if __name__ == "__main__":
    factory = getattr(echo_app, sys.argv[1])
    given = flags.load(ServeSettings, sys.argv[2:], name="serve")
    deployment.MOST_REQUESTS = given.max_in_flight
    leave(run_job(lambda: deployment.serve(given, factory)))
