"""Who is let in: whoever has the token, and only this machine where there is none."""

from __future__ import annotations

import hmac
import os
import socket
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path

from mlops.errors import RequestError, SettingsError

TOKEN_VARIABLE = "MLOPS_SERVE_TOKEN"
OPEN_PATHS = frozenset({"/ping", "/health", "/v2/health/live", "/v2/health/ready"})
"""What answers without a token: liveness alone, one bit that says nothing of the model."""

Headers = Iterable[tuple[bytes, bytes]]


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


def required_token(host: str, path: str | None) -> str | None:
    """Returns the token that clients must send, which there must be if others can reach the host.

    Args:
        host: Address or name that is listened on.
        path: A file with the token; see `read_token`.

    Raises:
        SettingsError: There is none, or it cannot be read.
    """
    token = read_token(path)
    if token is None and not is_loopback(host):
        raise SettingsError(
            f"host: {host} is open to other machines and must come with a token, got none; set "
            f"{TOKEN_VARIABLE}, or --token_file to a file only you can read"
        )
    return token


def is_loopback(host: str) -> bool:
    """Tells whether only this machine can reach an address or a name; not so if it is unknown."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    addresses = [str(entry[4][0]).partition("%")[0] for entry in found]
    return all(ip_address(address).is_loopback for address in addresses)


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


def header(headers: Headers, name: bytes) -> bytes:
    """Returns the first header of a name in lower case, empty where there is none."""
    for key, value in headers:
        if key == name:
            return value
    return b""
