"""Who scores the blocks of a table: threads of this process, or Ray's workers."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal, Protocol

import pyarrow as pa

from mlops.cluster import machines
from mlops.errors import ServingError, first_line
from mlops.serving.batch.scoring import BadRow, Scorer

AHEAD = 2  # blocks a worker or thread: one in its hands, one waiting for it
# What one driver can feed.
MOST_THREADS = 8
MOST_WORKERS = 64


class Pool(Protocol):
    """Scores blocks in any order.

    Attributes:
        ahead: Blocks that should be under way while another one is read.
    """

    ahead: int

    def take(self, scorer: Scorer) -> None:
        """Takes the model to score with; before the first block."""

    def submit(self, rows: pa.Table) -> Any:
        """Starts scoring a block and returns a handle."""

    def collect(self, handle: Any) -> pa.Table | BadRow:
        """Waits for a block's predictions.

        Raises:
            ServingError: They cannot be had.
        """

    def close(self) -> None:
        """Gives up what is under way."""


class Threads:
    """Scores blocks in threads of this process: numpy, pandas and Arrow let each other run.

    Args:
        count: Threads; by default one a core.
    """

    def __init__(self, count: int | None = None) -> None:
        # Importing it sets an environment variable.
        from threadpoolctl import threadpool_limits

        count = count or min(MOST_THREADS, cores())
        self.ahead = AHEAD * count
        # Each is to keep to a core.
        self._limits = threadpool_limits(1, user_api="blas")
        self._threads = ThreadPoolExecutor(count)

    def take(self, scorer: Scorer) -> None:
        """Takes the model."""
        self._scorer = scorer

    def submit(self, rows: pa.Table) -> Future[pa.Table | BadRow]:
        """Leaves a block to the next thread that is free."""
        return self._threads.submit(self._scorer, rows)

    def collect(self, handle: Future[pa.Table | BadRow]) -> pa.Table | BadRow:
        """Waits for the predictions."""
        return handle.result()

    def close(self) -> None:
        """Ends the threads."""
        self._threads.shutdown(cancel_futures=True)
        self._limits.restore_original_limits()


class RayWorkers:
    """Scores blocks in Ray's tasks; one whose worker dies is scored by another.

    Args:
        count: Workers, or "auto" for as many as fit the connected cluster.
        cpus: Cores a worker.

    Raises:
        InputError: They do not fit.
    """

    def __init__(self, count: int | Literal["auto"], cpus: float) -> None:
        import ray

        workers = machines.workers(machines.resources(), count, cpus, 0.0, at_most=MOST_WORKERS)
        self.ahead = AHEAD * workers.count
        self._task = ray.remote(num_cpus=workers.cpus)(score_buffer)
        # They import what they need while the driver reads the model.
        warm_up = ray.remote(num_cpus=workers.cpus)(_nothing)
        self._warming = [warm_up.remote() for _ in range(workers.count)]

    def take(self, scorer: Scorer) -> None:
        """Puts the model where all workers of a host share it."""
        import ray

        self._scorer = ray.put(scorer)

    def submit(self, rows: pa.Table) -> Any:
        """Sends a block."""
        return self._task.remote(self._scorer, to_buffer(rows))

    def collect(self, handle: Any) -> pa.Table | BadRow:
        """Receives the predictions."""
        import ray

        try:
            scored = ray.get(handle)
        except ray.exceptions.RayError as error:
            reason = first_line(getattr(error, "cause", None) or error)
            raise ServingError(
                f"workers must score every block, got {reason}; if memory was short, give "
                "--block_rows or ask for fewer --workers"
            ) from error
        return scored if isinstance(scored, BadRow) else from_buffer(scored)

    def close(self) -> None:
        """Leaves the rest to the connection."""


def cores() -> int:
    """Counts the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def score_buffer(scorer: Scorer, rows: pa.Buffer) -> pa.Buffer | BadRow:
    """Scores a packed block: the task of a worker."""
    scored = scorer(from_buffer(rows))
    return scored if isinstance(scored, BadRow) else to_buffer(scored)


def to_buffer(table: pa.Table) -> pa.Buffer:
    """Packs a table into one buffer, which processes of a host share without copies.

    Pickled as it is, a slice would bring along all of the buffers it is a part of.
    """
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue()


def from_buffer(buffer: pa.Buffer) -> pa.Table:
    """Unpacks what `to_buffer` packed; the columns lie in the buffer."""
    with pa.ipc.open_stream(buffer) as stream:
        return stream.read_all()


def _nothing() -> None:
    """Runs in a worker that has imported this module, and so all that scoring needs."""
