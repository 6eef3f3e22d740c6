"""Sends the job `count` to a job server and follows it, as `tune` does, with less patience.

python follower.py ADDRESS PATIENCE FLAGS
"""

from __future__ import annotations

import sys
from typing import Any

from mlops.cluster import job_server, remote_job, submission
from mlops.console import leave, run_job


class Impatient(remote_job.RemoteJob):
    """Does not wait long once the job is sent."""

    def follow(self) -> Any:
        job_server.ANSWER_SECONDS = 4.0
        remote_job.STATE_SECONDS = 0.5
        remote_job.SILENCE_SECONDS = 3.0
        remote_job.LONGEST_SILENCE_SECONDS = 24.0
        remote_job.CHOICE_SECONDS = 2.0
        return super().follow()


if __name__ == "__main__":
    address, patience, *flags = sys.argv[1:]
    remote_job.PATIENCE_SECONDS = float(patience)
    submission.RemoteJob = Impatient  # type: ignore[misc]
    leave(run_job(lambda: submission.run("count", flags, address, "http://127.0.0.1:1")))
