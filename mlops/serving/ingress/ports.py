"""Loopback ports for the replicas of one job."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import closing

from mlops.errors import InputError

# A block of the job's own: the HAProxy of another job may still know a port that it has seen. The
# blocks lie below the kernel's ports for clients.
PORTS = range(20_000, 32_000)
BLOCK = 100


def free_block(replicas: int, among: range = PORTS) -> range:
    """Finds free ports in a row, as Serve wants them: one for its own proxy, others for replicas.

    Args:
        replicas: How many there are. One that ended keeps its port for a while, so more are taken
            than there are replicas, as far as there are.
        among: Where to look.

    Raises:
        InputError: There are too few in a row even for these.
    """
    size = max(BLOCK, 5 * replicas)
    if size <= len(among):
        start = random.randrange(among.start, among.stop - size + 1)
        if all(is_free(port) for port in range(start, start + size)):
            return range(start, start + size)
    runs = list(_free_runs(among))
    size = min(size, max(map(len, runs), default=0))
    if size < min(replicas + 1, BLOCK):
        raise InputError(
            f"replicas: {replicas} must have as many free ports in a row, and one more, between "
            f"{among.start} and {among.stop}, got {size}; lower --replicas, or end what listens "
            "there (`ss -ltn` lists it)"
        )
    run = random.choice([run for run in runs if len(run) >= size])
    start = random.randrange(run.start, run.stop - size + 1)
    return range(start, start + size)


def _free_runs(among: range) -> Iterator[range]:
    """Yields the rows of free ports between ports that are taken."""
    start = among.start
    for port in among:
        if not is_free(port):
            if port > start:
                yield range(start, port)
            start = port + 1
    if among.stop > start:
        yield range(start, among.stop)


def is_free(port: int) -> bool:
    """Tells whether a port of 127.0.0.1 can be listened at."""
    return listening_error("127.0.0.1", port) is None


def listening_error(address: str, port: int) -> OSError | None:
    """Returns why an address cannot be listened on, None if it can."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with closing(socket.socket(family)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen()
        except OSError as error:
            return error
    return None
