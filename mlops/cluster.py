"""Ray: connecting to a cluster or starting one, and what its workers get."""

from __future__ import annotations

import gc
import logging
import math
import os
import secrets
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mlops.errors import InputError, TableError, first_line
from mlops.files import is_uri, local_copy, remove, replacing

LOCAL = "local"
# Seconds a cluster may take to accept a connection.
CONNECT_SECONDS = 10.0
# Seconds a machine may take to look at the storage; it starts a process for that.
LOOK_SECONDS = 60.0


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


class Connection:
    """A connection to Ray: to a cluster that is there, else to one started here.

    Open it in the main thread: the kernel ends the processes of a cluster with the thread that
    started them. An existing connection is used and left alone.

    Args:
        address: `auto` or `HOST:PORT`; by default what `RAY_ADDRESS` says, and `local` without it.
    """

    def __init__(self, address: str | None = None) -> None:
        # Before anything imports Ray.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        self._address = address or os.environ.get("RAY_ADDRESS") or LOCAL
        if self._address != LOCAL:
            authenticate()
        self._opened = False

    @property
    def is_local(self) -> bool:
        """Whether there is no cluster but the one to be started here."""
        return self._address == LOCAL

    def open(self) -> None:
        """Connects.

        Raises:
            InputError: If there is no cluster at the address.
        """
        import ray

        if ray.is_initialized():
            return
        address = self._address
        doing = "starting Ray" if self.is_local else f"connecting to Ray at {address}"
        print(doing, file=sys.stderr, flush=True)
        _check(address)
        on_sigterm = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(
                address=address,
                include_dashboard=False if self.is_local else None,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except (ConnectionError, RuntimeError) as error:
            raise _no_cluster(address, error) from error
        # Ray's own ends the process with a dump of the stack.
        signal.signal(signal.SIGTERM, on_sigterm)
        self._opened = True

    def close(self) -> None:
        """Disconnects; a cluster started here ends. Harmless when repeated.

        Other threads may go on meanwhile, as long as they hold nothing of Ray's.
        """
        if self._opened:
            import ray

            # Garbage may hold references to objects of Ray's. Let no other thread collect it now:
            # a reference dropped while Ray shuts down can end the process.
            gc.freeze()
            ray.shutdown()
            gc.unfreeze()
            self._opened = False


def _check(address: str) -> None:
    """Connects to the port of an address once: Ray would try for ever."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise _no_cluster(address, error) from error


def _no_cluster(address: str, error: Exception) -> InputError:
    return InputError(
        f"address: must be that of a running cluster, got {address} ({first_line(error)}); start "
        "one with `ray start --head`, see that its token is in ~/.ray/auth_token here too, or "
        "leave --address and RAY_ADDRESS out to use this machine alone"
    )


def authenticate() -> None:
    """Lets Ray send its token, if there is one; to an address it does so only when told."""
    token = os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")
    if "RAY_AUTH_TOKEN" in os.environ or Path(token).expanduser().exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def lasting_folder() -> Path:
    """Returns the folder that relative paths of what is to stay are in.

    That of a submitted job is a copy, which Ray removes with the job: then it is the home.
    """
    return Path.home() if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ else Path.cwd()


def workers(
    count: int | Literal["auto"],
    cpus: float,
    gpus: float | Literal["auto"],
    *,
    at_most: int,
    may_grow: bool = False,
) -> Workers:
    """Divides the connected cluster among workers.

    Args:
        count: Workers, or "auto" for as many as fit and pay.
        cpus: Cores a worker.
        gpus: GPUs a worker; "auto" is 1 where the cluster has any, else 0.
        at_most: How many pay.
        may_grow: Whether machines may join: then more may be asked for by number than fit now.

    Raises:
        InputError: If they do not fit.
    """
    import ray

    total = ray.cluster_resources()
    if gpus == "auto":
        gpus = 1.0 if total.get("GPU", 0) >= 1 else 0.0
    fitting = math.floor(total.get("CPU", 0) / cpus + 1e-9)
    if gpus:
        fitting = min(fitting, math.floor(total.get("GPU", 0) / gpus + 1e-9))
    wanted = min(fitting, at_most) if count == "auto" else count
    if fitting < 1 or wanted > fitting:
        have = f"{total.get('CPU', 0):g} cores and {total.get('GPU', 0):g} GPUs"
        if may_grow and count != "auto":
            text = f"{fitting} of {count} workers fit the cluster now, with {have}"
            print(text, file=sys.stderr, flush=True)
            return Workers(count, cpus, gpus)
        raise InputError(
            f"resources: {max(wanted, 1)} workers of {cpus:g} cores and {gpus:g} GPUs must fit "
            f"the cluster, got {have}; ask for less, or for workers: auto"
        )
    return Workers(wanted, cpus, gpus)


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
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    name = f"{place.rstrip('/')}/probe-{secrets.token_hex(8)}"
    try:
        _write(name)
    except TableError as error:
        raise InputError(f"storage: {error}") from error
    look = ray.remote(_look)
    looking = {}
    for node in ray.nodes():
        if node["Alive"] and node["Resources"].get("CPU", 0) >= cpus:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            host = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
            task = look.options(num_cpus=0, max_retries=0, scheduling_strategy=there).remote(name)
            looking[task] = host
    ended, _ = ray.wait([*looking], num_returns=len(looking), timeout=LOOK_SECONDS)
    blind = []
    for task in ended:
        with suppress(RayError):
            if reason := ray.get(task):
                blind.append(f"{looking[task]} does not: {reason}")
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
                return f"`{name}` has another content there"
        _write(own)
        remove(own)
    except FileNotFoundError:
        return "what is written here is not there"
    except (OSError, TableError) as error:
        return first_line(error)
    return None
