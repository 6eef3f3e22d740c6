"""A job server of Ray's, asked with patience that ends: each request has a time limit.

What is taken from inside Ray's client, read in 2.60, is how it asks: `_do_request`. One without it
is used as it is, without limits.
"""

from __future__ import annotations

import asyncio
import codecs
import io
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from queue import Queue
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

# Seconds that an answer may take, from its one piece to the next; a folder is sent in one.
ANSWER_SECONDS = 30.0
UPLOAD_SECONDS = 600.0


def connect(address: str) -> JobSubmissionClient:
    """Returns Ray's client of a job server, each of whose requests has a time limit.

    Args:
        address: `http://` of the server.
    """
    from ray.job_submission import JobSubmissionClient

    # RAY_ADDRESS would win over what is given.
    os.environ["RAY_API_SERVER_ADDRESS"] = address
    # They tell of each file that is sent, and of each connection that is closed.
    for name in ("ray", "ray.dashboard.modules.job.sdk", "ray.dashboard.modules.dashboard_sdk"):
        logging.getLogger(name).setLevel(logging.ERROR)

    class Client(JobSubmissionClient):
        def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
            seconds = UPLOAD_SECONDS if method == "PUT" else ANSWER_SECONDS
            return super()._do_request(method, endpoint, timeout=seconds, **options)

    return Client(address)


def log_file(client: JobSubmissionClient, number: str, node: str) -> Iterator[str]:
    """Yields the log of a job that has ended, in pieces: as a file, which has an end.

    Args:
        client: Of its job server.
        number: Ray's name for the job.
        node: Where its driver ran.

    Raises:
        OSError: The server cannot be reached.
        Exception: It does not answer with the log; in its own words.
    """
    asked = f"submission_id={number}&node_id={node}&lines=-1&timeout={UPLOAD_SECONDS:.0f}"
    path = f"/api/v0/logs/file?{asked}"
    ask = getattr(client, "_do_request", None)
    if ask is None:
        yield client.get_job_logs(number)
        return
    with ask("GET", path, stream=True) as answer:
        if answer.status_code != 200:
            raise RuntimeError(f"status code {answer.status_code}: {answer.text}")
        # As the server reads it for those that follow it.
        utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        decoder = io.IncrementalNewlineDecoder(utf8, translate=True)
        for piece in answer.iter_content(2**16):
            yield decoder.decode(piece)
        yield decoder.decode(b"", final=True)


class Reading:
    """One reading of a job's log, from its beginning: as Ray follows it, in a thread.

    Each piece is an event of this object, and its end, for whatever reason, is one of None.
    """

    def __init__(
        self,
        client: JobSubmissionClient,
        number: str,
        events: Queue[tuple[object, Any]],
        pause: float,
    ) -> None:
        self._client, self._number, self._events = client, number, events
        self._loop = asyncio.new_event_loop()
        self._task = self._loop.create_task(self._read(pause))
        threading.Thread(target=self._run, daemon=True).start()

    def close(self) -> None:
        """Ends it."""
        with suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(self._task.cancel)

    def _run(self) -> None:
        with suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._task)
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    async def _read(self, pause: float) -> None:
        await asyncio.sleep(pause)
        with suppress(Exception):  # what is wrong is told by who asks for the state
            async for text in self._client.tail_job_logs(self._number):
                self._events.put((self, text))
        self._events.put((self, None))
