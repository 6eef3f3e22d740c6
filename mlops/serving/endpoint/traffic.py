"""Bytes on their way: bodies that come in, answers that go out.

A slow client cannot hold a replica: its body is read beside all others, within `body_timeout`, and
takes none of the `max_in_flight` places before it is there; an answer that it does not read waits
beside all others too. What such clients have sent, and what they have not read, is bounded in
bytes, all of them together.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from mlops.errors import RequestError
from mlops.serving.endpoint.security import Headers, header

if sys.version_info >= (3, 11):
    from asyncio import timeout
else:
    from async_timeout import timeout

AT_A_TIME = 4
"""Bodies of the largest size that may be in memory at a time, and answers as many."""
PIECE_BYTES = 65_536
"""What the server takes of an answer without waiting for the client."""

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


@dataclass(frozen=True)
class Limits:
    """What one request, and all together, may take of a replica.

    Attributes:
        max_rows: Rows of a request.
        max_body_bytes: Bytes of its body, and of its answer.
        max_in_flight: Requests that are being computed in threads or wait for it.
        request_timeout: Seconds from the whole body to the answer.
        body_timeout: Seconds for the whole body, and for the client to read on in an answer.
    """

    max_rows: int = 10_000
    max_body_bytes: int = 16 * 2**20
    max_in_flight: int = 64
    request_timeout: float = 10.0
    body_timeout: float = 5.0


class Disconnected(Exception):
    """The client has gone, or reads nothing; there is nobody to answer."""


class Bodies:
    """Reads bodies, each bounded in size and time, and all together in size.

    To be used on one event loop.

    Args:
        limits: The bounds.
    """

    def __init__(self, limits: Limits) -> None:
        self._most = limits.max_body_bytes
        self._most_together = AT_A_TIME * limits.max_body_bytes
        self._seconds = limits.body_timeout
        self._held = 0

    async def read(self, receive: Receive, headers: Headers) -> bytes:
        """Returns the whole body; `release` its length when it is no longer needed.

        Raises:
            RequestError: It is too large, or comes too slowly. The rest of it is unread.
            Disconnected: The client has gone.
        """
        self._check_length(header(headers, b"content-length"))
        chunks: list[bytes] = []
        size = 0
        try:
            async with timeout(self._seconds):
                more = True
                while more:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise Disconnected
                    chunk = message.get("body", b"")
                    more = message.get("more_body", False)
                    size += len(chunk)
                    self._held += len(chunk)
                    if size > self._most:
                        raise self._too_large(f"over {self._most}")
                    if self._held > self._most_together:
                        raise busy()
                    chunks.append(chunk)
        except asyncio.TimeoutError as error:
            self._held -= size
            raise RequestError(
                408,
                "slow_body",
                f"a body must arrive within {self._seconds:g} s, got {size} bytes of it; send it "
                "faster, or less of it",
            ) from error
        except BaseException:
            self._held -= size
            raise
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def release(self, size: int) -> None:
        """Says that a body of so many bytes is no longer held."""
        self._held -= size

    def _check_length(self, announced: bytes) -> None:
        if announced.isdigit() and (len(announced) > 15 or int(announced) > self._most):
            raise self._too_large(announced[:15].decode())

    def _too_large(self, got: str) -> RequestError:
        return RequestError(
            413,
            "too_large",
            f"a body must have at most {self._most} bytes, got {got}; send several requests, or "
            "score the table with `python -m ray_jobs.predict`",
        )


class Answers:
    """Sends answers piece by piece as clients read them, and counts what they have not read.

    To be used on one event loop. Serve lets `send` wait for the client as the job serve sets it up;
    started by its own commands it takes in all of an answer at once, and nothing is left to count.

    Args:
        limits: The bounds.
    """

    def __init__(self, limits: Limits) -> None:
        self._most_together = AT_A_TIME * limits.max_body_bytes
        self._seconds = limits.body_timeout
        self._held = 0

    @property
    def held(self) -> int:
        """Bytes of answers that are not read yet."""
        return self._held

    def has_room(self, size: int) -> bool:
        """Tells whether an answer of so many bytes may be sent now; a short one always may."""
        return size <= PIECE_BYTES or self._held + size <= self._most_together

    async def send(self, send: Send, *messages: dict[str, Any]) -> None:
        """Sends messages of an answer, the last of which may have a body.

        Raises:
            Disconnected: The client does not read on.
        """
        body = messages[-1].get("body", b"")
        self._held += len(body)
        try:
            for message in messages[:-1]:
                await send(message)
            if len(body) <= PIECE_BYTES:
                await send(messages[-1])
            else:
                await self._send_pieces(send, messages[-1], body)
        finally:
            self._held -= len(body)

    async def _send_pieces(self, send: Send, message: dict[str, Any], body: bytes) -> None:
        for start in range(0, len(body), PIECE_BYTES):
            end = start + PIECE_BYTES
            piece = {**message, "body": body[start:end]}
            piece["more_body"] = end < len(body) or message.get("more_body", False)
            try:
                async with timeout(self._seconds):
                    await send(piece)
                await asyncio.sleep(0)  # a client that reads fast lets others have their turn
            except asyncio.TimeoutError as error:
                raise Disconnected from error


def busy() -> RequestError:
    """Returns the refusal of a request beyond what is taken on at a time."""
    return RequestError(
        503,
        "overloaded",
        "an endpoint must have room for a request, got more at a time than it takes; try again in "
        "a second",
    )


def late(seconds: float) -> RequestError:
    """Returns the refusal of a request that was not answered in time."""
    return RequestError(
        503,
        "timeout",
        f"a request must be answered within {seconds:g} s, got no answer yet; send fewer rows at a "
        "time, or try again later",
    )
