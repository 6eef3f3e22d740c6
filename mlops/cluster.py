"""Ray: connecting to a cluster or starting one, and what its workers get."""

from __future__ import annotations

import importlib
import logging
import math
import os
from dataclasses import dataclass
from typing import Literal

from mlops.errors import InputError


@dataclass(frozen=True)
class Workers:
    """The workers of a study.

    Attributes:
        count: How many train at the same time.
        cpus: Cores a worker.
        gpus: GPUs a worker, 0 for none.
    """

    count: int
    cpus: float
    gpus: float


def connect() -> None:
    """Connects to the cluster that `RAY_ADDRESS` names, as under `ray job submit`; else starts one.

    Call it from the main thread: the kernel ends Ray's processes with the thread that started them.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    import ray

    address = os.environ.get("RAY_ADDRESS", "local")
    ray.init(
        address=address,
        include_dashboard=False if address == "local" else None,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )


def workers(
    count: int | Literal["auto"], cpus: float, gpus: float | Literal["auto"], *, at_most: int
) -> Workers:
    """Divides the connected cluster among workers.

    Args:
        count: Workers, or "auto" for as many as fit.
        cpus: Cores a worker.
        gpus: GPUs a worker; "auto" is 1 where the cluster has any, else 0.
        at_most: More would have nothing to do.

    Raises:
        InputError: If not even one fits.
    """
    import ray

    total = ray.cluster_resources()
    if gpus == "auto":
        gpus = 1.0 if total.get("GPU", 0) >= 1 else 0.0
    fitting = math.floor(total.get("CPU", 0) / cpus + 1e-9)
    if gpus:
        fitting = min(fitting, math.floor(total.get("GPU", 0) / gpus + 1e-9))
    wanted = fitting if count == "auto" else count
    if fitting < 1 or wanted > fitting:
        have = f"{total.get('CPU', 0):g} cores and {total.get('GPU', 0):g} GPUs"
        raise InputError(
            f"resources: {max(wanted, 1)} workers of {cpus:g} cores and {gpus:g} GPUs must fit "
            f"the cluster, got {have}; ask for less, or for workers: auto"
        )
    return Workers(min(wanted, at_most), cpus, gpus)


def warm_up(workers: Workers, module: str) -> list[object]:
    """Imports a module in as many worker processes as will be used, without waiting for it.

    Args:
        workers: The workers.
        module: What to import.

    Returns:
        References that keep the tasks alive.
    """
    import ray

    task = ray.remote(importlib.import_module).options(num_cpus=workers.cpus, max_retries=0)
    return [task.remote(module) for _ in range(workers.count)]


def disconnect() -> None:
    """Leaves the cluster; one that `connect` started ends."""
    import ray

    ray.shutdown()
