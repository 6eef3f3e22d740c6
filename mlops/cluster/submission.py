"""A job on a Ray cluster: sent to its job server, followed there (see `remote_job`).

This is `ray job submit` in the job's own words: the same command with `--address http://...` says
the same things, ends with the same JSON line and exits with the same status. So does `ray://...`:
as a study's driver holds threads and files, it runs in the cluster and not behind Ray Client.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

from mlops.cluster.connection import CONNECT_SECONDS, authenticate, greet
from mlops.cluster.job_log import JobLog
from mlops.cluster.job_server import connect
from mlops.cluster.remote_job import RemoteJob
from mlops.errors import InputError, RemoteJobError, first_line

if TYPE_CHECKING:
    from ray.job_submission import JobDetails

T = TypeVar("T")

# What the job needs of this process's environment.
VARIABLES = (
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_INSECURE_TLS",
    "MLFLOW_S3_ENDPOINT_URL",
    "AWS_ENDPOINT_URL",
    "AWS_REGION",
)
# Seconds that a stopped job has to tell MLflow; Ray's own are 3.
STOP_SECONDS = 60
# Seconds until a new cluster takes jobs.
PATIENCE_SECONDS = 60.0
# What Ray raises where something else answers.
_NO_JOB_SERVER = (OSError, HTTPException, RuntimeError, ValueError, LookupError, TypeError)


def destination(address: str | None) -> str | None:
    """Returns where a job is to be sent; None if its driver is to run here.

    Args:
        address: As given, by default what `RAY_ADDRESS` says. Jobs are sent to a job server, and to
            Ray Client, which knows it.
    """
    address = address or os.environ.get("RAY_ADDRESS", "")
    return address if address.startswith(("http://", "https://", "ray://")) else None


def run(job: str, argv: Sequence[str], address: str, tracking_uri: str) -> dict[str, Any]:
    """Runs a job on a cluster, from a copy of this folder, and returns its result.

    Args:
        job: Its name, such as `tune`.
        argv: Its flags; `--address` is left out.
        address: `http://` of the job server, or `ray://` of the cluster.
        tracking_uri: The MLflow store for its record.

    Raises:
        InputError: There is no such server, it does not let this process in, or the cluster cannot
            reach the store.
        RemoteJobError: The job failed; it has said why. Or its server has been away for too long.
        KeyboardInterrupt: The user stopped it, or left it.
    """
    authenticate()
    address = _answered(address, lambda: _job_server(address))
    _check_store(tracking_uri, address)
    client = _answered(address, lambda: connect(address))
    command = shlex.join(["python", "-m", f"ray_jobs.{job}", *_without_address(argv)])
    environment = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    environment["MLFLOW_TRACKING_URI"] = tracking_uri
    environment["RAY_JOB_STOP_WAIT_TIME_S"] = str(STOP_SECONDS)
    runtime = {"working_dir": ".", "env_vars": environment}
    number = _answered(address, lambda: client.submit_job(entrypoint=command, runtime_env=runtime))
    print(f"job {number} at {address}", file=sys.stderr, flush=True)
    sent = RemoteJob(client, number, address)
    return _result(sent.follow(), sent.log, number)


def _job_server(address: str) -> str:
    """Returns the URL of a job server that answers; Ray Client is asked for that of its cluster."""
    if not address.startswith("ray://"):
        # Ray would wait for ever; that somebody answers is enough, whatever it is.
        version = f"{address.rstrip('/')}/api/version"
        with suppress(HTTPError), urlopen(version, timeout=CONNECT_SECONDS):
            pass
        return address
    greet(address.removeprefix("ray://"))
    from ray.dashboard.utils import ray_client_address_to_api_server_url

    logging.getLogger("ray.client_builder").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it warns of it also raises
        url: str = ray_client_address_to_api_server_url(address)
    return url


def _check_store(uri: str, address: str) -> None:
    if urlsplit(address).hostname in ("localhost", "127.0.0.1", "::1"):
        return  # this machine, or a tunnel
    if not uri.startswith(("http://", "https://", "postgresql", "mysql", "mssql", "databricks")):
        raise InputError(
            f"tracking.uri: must be a store that the cluster reaches, got {uri}; start `mlflow "
            "server` in its network and set MLFLOW_TRACKING_URI"
        )


def _answered(address: str, ask: Callable[[], T]) -> T:
    """Asks a job server, again while a new one has no agent to take jobs."""
    from ray.exceptions import RayError

    give_up = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return ask()
        except (*_NO_JOB_SERVER, RayError) as error:
            told = first_line(error)
            if "No available agent" not in str(error) or time.monotonic() > give_up:
                raise InputError(
                    f"address: must be that of a job server that takes this job, got {address} "
                    f"({told}); see that the cluster runs, and that its token is in "
                    "~/.ray/auth_token here too"
                ) from error
        time.sleep(1.0)


def _without_address(argv: Sequence[str]) -> list[str]:
    kept: list[str] = []
    flags = iter(argv)
    for flag in flags:
        if flag == "--address":
            next(flags, None)
        elif not flag.startswith("--address="):
            kept.append(flag)
    return kept


def _result(details: JobDetails, log: JobLog, number: str) -> dict[str, Any]:
    status = str(details.status.value)
    if status == "SUCCEEDED":
        if not log.result:
            raise RemoteJobError(f"the job {number} must answer with a line of JSON, got none")
        result: dict[str, Any] = json.loads(log.result)
        return result
    if log.result:
        print(log.result, file=sys.stderr, flush=True)
    if status == "STOPPED":
        raise RemoteJobError(f"the job {number} must run to its end, got stopped", 130)
    code = details.driver_exit_code
    if code is None:  # it has not even begun
        raise RemoteJobError(f"the job {number} must start, got {details.message}")
    raise RemoteJobError(f"the job {number} must end well, got exit status {code}, see above", code)
