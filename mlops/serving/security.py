"""What stands between the network and the model: token, size and time of a body, work at a time.

A slow client cannot hold a replica: its body is read beside all others, within `body_timeout`, and
takes none of the `max_in_flight` places before it is there. What such clients have sent is bounded
in bytes, all of them together.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import sys
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops.errors import RequestError, SettingsError

if sys.version_info >= (3, 11):
    from asyncio import timeout
else:
    from async_timeout import timeout

TOKEN_VARIABLE = "MLOPS_SERVE_TOKEN"
OPEN_PATHS = frozenset({"/ping", "/health", "/v2/health/live", "/v2/health/ready"})
"""What answers without a token: liveness alone, one bit that says nothing of the model."""
BODIES_AT_A_TIME = 4
"""Bodies of the largest size that may be in memory at a time."""

Headers = Iterable[tuple[bytes, bytes]]
Receive = Callable[[], Awaitable[dict[str, Any]]]


@dataclass(frozen=True)
class Limits:
    """What one request, and all together, may take of a replica.

    Attributes:
        max_rows: Rows of a request.
        max_body_bytes: Bytes of its body.
        max_in_flight: Requests that are being computed or wait for it.
        request_timeout: Seconds from the whole body to the answer.
        body_timeout: Seconds for the whole body.
    """

    max_rows: int = 10_000
    max_body_bytes: int = 16 * 2**20
    max_in_flight: int = 64
    request_timeout: float = 10.0
    body_timeout: float = 5.0


class Disconnected(Exception):
    """The client has gone; there is nobody to answer."""


def read_token(path: str | None) -> str | None:
    """Returns the token that clients must send, from MLOPS_SERVE_TOKEN or else a file.

    Raises:
        SettingsError: The file is missing or others may read it, or the token is unusable.
    """
    token = os.environ.get(TOKEN_VARIABLE)
    if token is None and path is None:
        return None
    if token is None:
        try:
            mode = Path(str(path)).stat().st_mode
            token = Path(str(path)).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"token_file must be a file with a token, got {path} ({error}); write one"
            ) from error
        if mode & 0o077:
            raise SettingsError(
                f"token_file must be closed to other users, got mode {mode & 0o777:o}; run "
                f"`chmod 600 {path}`"
            )
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        got = "an empty one" if not token else "one with other characters, or spaces, in it"
        raise SettingsError(
            f"a token must be one word of ASCII characters, got {got}; make one with "
            "`openssl rand -hex 32`"
        )
    return token


class Guard:
    """Lets requests with the right bearer token pass, and all where there is no token.

    Args:
        token: The token, or None.
        open_paths: Paths that answer without it, besides `OPEN_PATHS`.
    """

    def __init__(self, token: str | None, open_paths: Iterable[str] = ()) -> None:
        self._expected = None if token is None else token.encode()
        self._open = OPEN_PATHS.union(open_paths)

    def check(self, path: str, headers: Headers) -> None:
        """Refuses a request without the token; comparing takes the same time however it differs.

        Raises:
            RequestError: The token is missing or wrong.
        """
        if self._expected is None or path in self._open:
            return
        scheme, _, given = header(headers, b"authorization").partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), self._expected):
            raise RequestError(
                401,
                "unauthorized",
                f"a request must carry the token of this endpoint, got "
                f"{'another one' if given else 'none'}; send the header Authorization: Bearer "
                "TOKEN",
            )


class Bodies:
    """Reads bodies, each bounded in size and time, and all together in size.

    To be used on one event loop.

    Args:
        limits: The bounds.
    """

    def __init__(self, limits: Limits) -> None:
        self._most = limits.max_body_bytes
        self._most_together = BODIES_AT_A_TIME * limits.max_body_bytes
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


def header(headers: Headers, name: bytes) -> bytes:
    """Returns the first header of a name in lower case, empty where there is none."""
    for key, value in headers:
        if key == name:
            return value
    return b""
