"""A job in a process of its own, everything it started, and what listens there."""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
MARK = "MLOPS_TEST_JOB"
LISTENING = "0A"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], Any], what: str, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"still waiting for {what}"
        time.sleep(0.1)


@dataclass
class Job:
    """A job under test.

    Attributes:
        process: Its own process; others carry `mark` in their environment.
        port: Where it listens.
        mark: Value of the variable MARK.
        log: What it writes to stderr.
        output: What it writes to stdout.
    """

    process: subprocess.Popen[bytes]
    port: int
    mark: str
    log: Path
    output: Path

    @classmethod
    def start(cls, folder: Path, arguments: list[str], **variables: str) -> Job:
        """Starts `python arguments`; `{port}` in them is a free port, else `--port` is added."""
        port = free_port()
        mark = uuid.uuid4().hex
        foreign = ("RAY_", "MLFLOW_", "MLOPS_")
        environment = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
        environment |= {MARK: mark, "PYTHONPATH": str(REPOSITORY), **variables}
        log, output = folder / f"{mark}.err", folder / f"{mark}.out"
        if "--port" in arguments:
            port = int(arguments[arguments.index("--port") + 1])
        elif not any("{port}" in argument for argument in arguments):
            arguments = [*arguments, "--port", "{port}"]
        arguments = [argument.replace("{port}", str(port)) for argument in arguments]
        with log.open("wb") as stderr, output.open("wb") as stdout:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=folder,
                env=environment,
                stdout=stdout,
                stderr=stderr,
                # As a shell starts what it is told to with `&`.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
            )
        return cls(process, port, mark, log, output)

    def wait_until_serving(self) -> Job:
        """Waits for the line that says so."""

        def serving() -> bool:
            assert self.process.poll() is None, self.said()
            return "serving mlp@" in self.said()

        wait_until(serving, f"{self.process.args} to serve", 120)
        return self

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def stop(self) -> int:
        """Asks it to stop and returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def result(self) -> dict[str, Any]:
        """The JSON of stdout's last line."""
        found: dict[str, Any] = json.loads(self.output.read_text().splitlines()[-1])
        return found

    def pids(self, command: str = "") -> list[int]:
        """Living processes of the job whose command line has `command` in it."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    ours = f"{MARK}={self.mark}".encode() in (entry / "environ").read_bytes()
                    line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                except OSError:
                    continue
                if ours and line and re.search(command, line):
                    found.append(int(entry.name))
        return sorted(found)

    def haproxy(self) -> list[int]:
        return self.pids(r"^\S+/haproxy -db ")

    def listening(self) -> set[tuple[str, int]]:
        """Addresses and ports on which a process of the job listens."""
        inodes = {inode for pid in self.pids() for inode in _sockets(pid)}
        found = set()
        for table in ("tcp", "tcp6"):
            for line in Path("/proc/net", table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTENING and fields[9] in inodes:
                    address, _, port = fields[1].partition(":")
                    found.add((_address(address), int(port, 16)))
        return found

    def beyond_loopback(self) -> set[tuple[str, int]]:
        return {
            (address, port)
            for address, port in self.listening()
            if not ipaddress.ip_address(address).is_loopback
        }

    def ask(self, path: str = "/", method: str = "GET", **given: Any) -> tuple[int, Any, Any]:
        """One request: status, headers, JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, **given)
            answer = connection.getresponse()
            return answer.status, answer.headers, json.loads(answer.read())
        finally:
            connection.close()


def _sockets(pid: int) -> set[str]:
    found = set()
    try:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            target = str(descriptor.readlink())
            if target.startswith("socket:["):
                found.add(target[8:-1])
    except OSError:
        pass  # the process has ended meanwhile
    return found


def _address(text: str) -> str:
    """An address of /proc/net: words of four bytes in the machine's order."""
    packed = b"".join(struct.pack("=I", int(text[i : i + 8], 16)) for i in range(0, len(text), 8))
    address = ipaddress.ip_address(packed)
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)
