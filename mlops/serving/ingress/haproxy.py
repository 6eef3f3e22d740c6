"""The program that Ray Serve starts as HAProxy: it mends the configuration, then becomes HAProxy.

Ray writes HAProxy's configuration anew before each start and each reload, and some of what it
writes no setting can change: two ports without authentication on all interfaces, an admin socket
for everyone, no limit on slow or large requests, and 500 as the answer when no replica is up.

Ray starts this file by its path, so it needs the standard library alone (0.1 s on busy cores).
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shlex
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

# What HAProxy itself answers, in the shape of the endpoint's errors: status -> reason, code, text.
ANSWERS = {
    400: ("Bad Request", "bad_request", "a request must be valid HTTP; correct it"),
    404: ("Not Found", "not_found", "there is no such path; see /docs"),
    408: ("Request Timeout", "slow_body", "a request must arrive without pauses; send it again"),
    413: ("Content Too Large", "too_large", "a body must have at most {limit} bytes; send less"),
    500: ("Internal Server Error", "internal", "the request failed; the server's log says why"),
    502: ("Bad Gateway", "unavailable", "the replica ended before it answered; try again"),
    503: ("Service Unavailable", "unavailable", "no replica can answer now; try again"),
    504: ("Gateway Timeout", "timeout", "the answer took too long; send fewer rows or try again"),
}
_RETRIED = (502, 503, 504)
_OPEN_SECTIONS = ("frontend prometheus", "listen stats")
_INGRESS = "frontend http_frontend"
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Ingress:
    """How HAProxy is to listen.

    Attributes:
        binary: The real HAProxy.
        folder: A folder of the user's own, for this program and the answers.
        bind: The only address to listen on, `host:port`.
        max_body_bytes: Larger bodies are refused by their length, unread.
        body_timeout: Seconds for the headers, and again for the body or its first 16 KB.
    """

    binary: str
    folder: str
    bind: str
    max_body_bytes: int
    body_timeout: float

    def answer(self, status: int) -> Path:
        """Where the answer of a status is."""
        return Path(self.folder, f"answer-{status}.http")


class UnknownConfiguration(Exception):
    """Ray wrote something this module does not know, so it cannot be made safe."""


def install(ingress: Ingress) -> Path:
    """Writes the answers and the program to name as Ray's HAProxy; returns its path."""
    for status in ANSWERS:
        ingress.answer(status).write_bytes(_answer(status, ingress.max_body_bytes))
    settings = Path(ingress.folder, "ingress.json")
    settings.write_text(json.dumps(asdict(ingress)), encoding="utf-8")
    program = Path(ingress.folder, "haproxy")
    command = shlex.join([sys.executable, "-I", "-S", str(Path(__file__).resolve()), str(settings)])
    program.write_text(f'#!/bin/sh\nexec {command} "$@"\n', encoding="utf-8")
    program.chmod(0o700)
    return program


def _answer(status: int, limit: int) -> bytes:
    reason, code, text = ANSWERS[status]
    error = {"code": code, "message": text.format(limit=limit), "details": []}
    body = json.dumps({"error": error, "model": None})
    head = [f"HTTP/1.1 {status} {reason}", "Content-Type: application/json"]
    head += [f"Content-Length: {len(body)}", "Cache-Control: no-store"]
    head += ["Retry-After: 1"] if status in _RETRIED else []
    return "\r\n".join([*head, "", body]).encode()


def mend(text: str, ingress: Ingress) -> str:
    """Returns Ray's configuration with one listening address, limits, and our answers.

    Harmless when repeated.

    Raises:
        UnknownConfiguration: If the result would not be that.
    """
    lines: list[str] = []
    section = ""
    for line in text.splitlines():
        if line and not line[0].isspace():
            section = line.strip()
        if section not in _OPEN_SECTIONS:
            lines += _mended(section, line, ingress)
    _check(lines, ingress)
    return "\n".join([*lines, ""])


def _mended(section: str, line: str, ingress: Ingress) -> list[str]:
    """The lines that take the place of one line."""
    words = line.split()
    match words[:2]:
        case ["log", *_] | ["errorfile", *_]:
            return []  # the log would go by UDP to whoever listens there
        case ["stats", "socket"]:
            return [re.sub(r"\bmode \d+", "mode 600", line)]
        case ["defaults"]:
            return [line, *_defaults(ingress)]
        case ["bind", *_] if section == _INGRESS:
            return [f"    bind {ingress.bind}", *_rules(ingress)]
        case ["http-request", "return"] if words[-2:] == ["if", "routes"]:
            return []  # which applications there are is nobody's business
    return [] if line.endswith(_MARK) else [line]


_MARK = "# ours"  # such lines are written anew when a configuration is mended twice


def _ours(lines: list[str]) -> list[str]:
    return [f"    {line} {_MARK}" for line in lines]


def _defaults(ingress: Ingress) -> list[str]:
    timeout = f"timeout http-request {_milliseconds(ingress.body_timeout)}"
    return [f"    errorfile {status} {ingress.answer(status)}" for status in ANSWERS] + _ours(
        [timeout]
    )


def _rules(ingress: Ingress) -> list[str]:
    return _ours(
        [
            "http-request deny deny_status 404 if { path,url_dec -m beg /-/ } "
            "!{ path -i /-/healthz }",
            "http-request deny deny_status 413 if { req.hdr_val(content-length) gt "
            f"{ingress.max_body_bytes} }}",
            # A client must not lift the time limit, nor have Serve read ahead of the endpoint.
            "http-request del-header x-request-timeout-seconds",
            "http-request set-header x-request-disconnect-disabled ?1",
            # A body that comes slowly, or not at all, waits here and not at a replica.
            f"http-request wait-for-body time {_milliseconds(ingress.body_timeout)} if METH_POST",
            # Serve's own refusals are plain text.
            *(
                f"http-response return status {status} errorfile {ingress.answer(status)} "
                f"if {{ status {status} }} {{ res.hdr(content-type) -m beg text/plain }}"
                for status in (500, 503)
            ),
        ]
    )


def _milliseconds(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"


def _check(lines: list[str], ingress: Ingress) -> None:
    """Refuses a configuration of a shape that this module does not know."""
    split = [line.split() for line in lines]
    binds = [words[1] for words in split if words[:1] == ["bind"]]
    sockets = [words for words in split if words[:2] == ["stats", "socket"]]
    sections = {line.strip() for line in lines if line and not line[0].isspace()}
    if binds != [ingress.bind]:
        raise UnknownConfiguration(f"must listen on {ingress.bind} alone, got {binds}")
    if any(words[3:5] != ["mode", "600"] for words in sockets):
        raise UnknownConfiguration(f"admin sockets must have mode 600, got {sockets}")
    if not sections >= {"global", "defaults", _INGRESS}:
        raise UnknownConfiguration(f"must have the sections Ray writes, got {sorted(sections)}")


def main(settings: str, arguments: list[str]) -> None:
    """Mends the file that `-f` names, and becomes HAProxy in the same process."""
    # Otherwise HAProxy would outlive a Serve that is killed, and hold the port. By this signal it
    # stops listening at once and ends with the last request.
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGUSR1, 0, 0, 0)
    if parent == 1 or os.getppid() != parent:
        sys.exit("the process that started HAProxy has ended")
    ingress = Ingress(**json.loads(Path(settings).read_text(encoding="utf-8")))
    if "-f" in arguments:
        path = Path(arguments[arguments.index("-f") + 1])
        try:
            text = mend(path.read_text(encoding="utf-8"), ingress)
        except UnknownConfiguration as error:
            sys.exit(f"HAProxy's configuration: {error}; use the version of Ray this was made for")
        # Ray finds its HAProxy by this path on the command line, so it stays the same.
        path.write_text(text, encoding="utf-8")
        path.chmod(0o600)
    os.execv(ingress.binary, [ingress.binary, *arguments])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
