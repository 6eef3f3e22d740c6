"""The machines of the connected Ray cluster: what they have, and what workers they can hold."""

from __future__ import annotations

import math
import platform
import re
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from mlops.errors import InputError, TableError, first_line
from mlops.files import is_uri, local_copy, remove, replacing

# Seconds a machine may take to answer; it starts a process for that.
ANSWER_SECONDS = 60.0


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


def resources() -> list[Mapping[str, float]]:
    """Returns what each machine of the connected cluster has, as Ray names it."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def workers(
    machines: Sequence[Mapping[str, float]],
    count: int | Literal["auto"],
    cpus: float,
    gpus: float | Literal["auto"],
    *,
    at_most: int,
    may_grow: bool = False,
) -> Workers:
    """Divides machines among workers.

    Args:
        machines: What each has.
        count: Workers, or "auto" for as many as fit and pay.
        cpus: Cores a worker.
        gpus: GPUs a worker, at most 1; "auto" is 1 where there is any, else 0.
        at_most: How many pay.
        may_grow: Whether machines may join: then more may be asked for by number than fit now.

    Raises:
        InputError: If they do not fit.
    """
    total = {name: sum(m.get(name, 0.0) for m in machines) for name in ("CPU", "GPU")}
    have = f"{total['CPU']:g} cores and {total['GPU']:g} GPUs"
    if gpus == "auto":
        gpus = 1.0 if total["GPU"] >= 1 else 0.0
    fitting = fitting_workers(machines, cpus, gpus)
    wanted = max(1, min(fitting, at_most)) if count == "auto" else count
    if wanted > fitting:
        if count == "auto" or not may_grow:
            raise InputError(
                f"resources: {wanted} workers of {cpus:g} cores and {gpus:g} GPUs must fit the "
                f"cluster, got {have}; ask for less, or for auto"
            )
        text = f"{fitting} of {wanted} workers fit the cluster now, with {have}"
        print(text, file=sys.stderr, flush=True)
    return Workers(wanted, cpus, gpus)


def fitting_workers(machines: Iterable[Mapping[str, float]], cpus: float, gpus: float) -> int:
    """Returns how many workers fit machines, none of them on parts of two machines or two GPUs.

    Args:
        machines: What each has, as Ray names it.
        cpus: Cores a worker.
        gpus: GPUs a worker, at most 1.
    """
    return sum(_fitting(machine, cpus, gpus) for machine in machines)


def _fitting(machine: Mapping[str, float], cpus: float, gpus: float) -> int:
    fitting = math.floor(machine.get("CPU", 0.0) / cpus + 1e-9)
    if gpus > 0:
        shares = math.floor(1 / gpus + 1e-9)
        fitting = min(fitting, math.floor(machine.get("GPU", 0.0)) * shares)
    return fitting


def gpu_memory() -> int | None:
    """Returns how many bytes of memory the smallest GPU of the cluster has.

    As `nvidia-smi` tells on each machine; None where none does.
    """
    found = [found for _, found in _on_each(lambda has: has.get("GPU", 0.0) > 0, _gpu_memory)]
    return min((memory for memory in found if memory is not None), default=None)


def _gpu_memory() -> int | None:
    words = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(words, capture_output=True, text=True, check=True, timeout=30).stdout
        return min(int(mebibytes) for mebibytes in told.split()) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def check_storage(place: str, cpus: float) -> None:
    """Checks that every machine of the connected cluster sees what others write to a place.

    A file written here is read on each machine that can train, which writes one of its own. A
    machine that leaves meanwhile, or does not answer, is no matter.

    Args:
        place: An absolute path, or a URI of an object store.
        cpus: Cores a worker; who has fewer trains nothing.

    Raises:
        InputError: The place cannot be used here, or some machine does not see it.
    """
    name = f"{place.rstrip('/')}/probe-{secrets.token_hex(8)}"
    try:
        _write(name)
    except TableError as error:
        raise InputError(
            f"storage: `{place}` on {platform.node()} must be writable, got: {_reason(error)}; "
            "choose another place"
        ) from error
    found = _on_each(lambda has: has.get("CPU", 0.0) >= cpus, _look, name)
    blind = [f"{host} does not: {reason}" for host, reason in found if reason]
    with suppress(OSError):
        remove(name)
    if blind:
        what = "a place" if is_uri(place) else "a folder"
        raise InputError(
            f"storage: must be {what} that all machines share, got {place}; {'; '.join(blind)}; "
            "mount one folder on all of them, give s3://BUCKET/FOLDER, or leave checkpoints out"
        )


def _write(name: str) -> None:
    with replacing(name) as unfinished:
        unfinished.write_bytes(name.encode())


def _look(name: str) -> str | None:
    """Reads a file and writes another beside it; returns what is wrong."""
    own = f"{name}-{secrets.token_hex(4)}"
    try:
        with local_copy(name) as file:
            if file.read_bytes() != name.encode():
                return "what is written here has another content there"
        _write(own)
        remove(own)
    except FileNotFoundError:
        return "what is written here is not there"
    except (OSError, TableError) as error:
        return _reason(error)
    return None


def _reason(error: Exception) -> str:
    """Returns what is wrong with a place, without the name of the file that was tried there."""
    cause = (isinstance(error, TableError) and error.__cause__) or error
    reason = isinstance(cause, OSError) and cause.strerror
    return reason or re.sub(r"/probe-[\w-]+", "", first_line(cause))


def _on_each(
    fits: Callable[[Mapping[str, float]], bool], task: Callable[..., Any], *arguments: object
) -> list[tuple[str, Any]]:
    """Calls a function on each machine; of those that do not answer, nothing is returned.

    Args:
        fits: Tells which machines by what they have.
        task: The function.
        arguments: Its arguments.

    Returns:
        For each machine its name and address, and what the function returned.
    """
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    function = ray.remote(task)
    asked = {}
    for node in ray.nodes():
        if node["Alive"] and fits(node["Resources"]):
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            options = function.options(num_cpus=0, max_retries=0, scheduling_strategy=there)
            host = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
            asked[options.remote(*arguments)] = host
    if not asked:
        return []
    ended, _ = ray.wait([*asked], num_returns=len(asked), timeout=ANSWER_SECONDS)
    answers = []
    for reference in ended:
        with suppress(RayError):
            answers.append((asked[reference], ray.get(reference)))
    return answers
