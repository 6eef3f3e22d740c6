"""Real servers on loopback: `mlflow server`, PostgreSQL, and a Ray cluster of one machine."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from urllib.request import urlopen

import pytest


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class MlflowServer:
    """`mlflow server` on a port of its own, which may be stopped and started again.

    Args:
        folder: Where it keeps its log, its artifacts and, unless told otherwise, its database.
        database: Another database's URI.
        flags: More flags.
        environment: More variables.
    """

    def __init__(
        self,
        folder: Path,
        database: str | None = None,
        flags: Sequence[str] = (),
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.folder, self._flags, self._more = folder, flags, environment
        self.uri = f"http://127.0.0.1:{free_port()}"
        self._database = database or f"sqlite:///{folder}/mlflow.db"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        port = self.uri.rpartition(":")[2]
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
        command += ["--workers", "1", "--port", port, "--backend-store-uri", self._database]
        command += ["--artifacts-destination", str(self.folder / "artifacts"), *self._flags]
        clean = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.folder,
                env={**clean, **quiet, **self._more},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 90
        while not self._answers():
            alive = self._process.poll() is None and time.monotonic() < deadline
            assert alive, (self.folder / "server.log").read_text()
            time.sleep(0.2)

    def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, how)
            self._process.wait(20)
            self._process = None

    def _answers(self) -> bool:
        with suppress(OSError), urlopen(f"{self.uri}/health", timeout=5) as answer:
            return bool(answer.status == 200)
        return False


@contextmanager
def postgresql() -> Iterator[str]:
    """PostgreSQL for as long as it is needed; yields the URI of an empty database."""
    if not shutil.which("initdb") or importlib.util.find_spec("psycopg") is None:
        pytest.skip("PostgreSQL is not installed here")
    # Not in pytest's folder, which is closed to other users: PostgreSQL refuses to serve as root.
    folder = Path(tempfile.mkdtemp(prefix="mlops-postgresql-"))
    as_nobody = []
    if not os.getuid():
        as_nobody = ["setpriv", "--reuid=nobody", "--clear-groups"]
        shutil.chown(folder, "nobody")
    data, port = str(folder / "data"), free_port()
    control = [*as_nobody, "pg_ctl", "--pgdata", data, "--silent", "--wait"]
    try:
        made = [*as_nobody, "initdb", "--pgdata", data, "--auth=trust", "--username=me"]
        subprocess.run(made, cwd="/", check=True, capture_output=True)
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
        start = [*control, "--log", str(folder / "log"), "--options", options, "start"]
        subprocess.run(start, cwd="/", check=True)
        try:
            yield f"postgresql+psycopg://me@127.0.0.1:{port}/postgres"
        finally:
            subprocess.run([*control, "--mode=immediate", "stop"], cwd="/", check=True)
    finally:
        shutil.rmtree(folder)


@contextmanager
def object_store(environment: pytest.MonkeyPatch) -> Iterator[str]:
    """S3 as moto has it, which this process's environment names; yields the URI of a bucket."""
    port = free_port()
    words = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(words, stdout=quiet, stderr=quiet) as process:
        try:
            deadline = time.monotonic() + 60
            while not _listens(port):
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.1)
            for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
                environment.setenv(name, "any")
            environment.setenv("AWS_REGION", "us-east-1")
            environment.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
            from pyarrow.fs import FileSystem

            store, name = FileSystem.from_uri("s3://tables?allow_bucket_creation=true")
            store.create_dir(name)
            yield "s3://tables"
        finally:
            process.terminate()


@dataclass(frozen=True)
class RayHead:
    """A Ray cluster of one machine.

    Attributes:
        address: For `RAY_ADDRESS`.
        dashboard: The dashboard's port, which takes jobs.
        client: The port of Ray Client.
    """

    address: str
    dashboard: int
    client: int


@contextmanager
def ray_head(environment: dict[str, str], cpus: int = 2) -> Iterator[RayHead]:
    """A cluster as `ray start --head` makes it, for as long as it is needed."""
    port, dashboard, agent, client = (free_port() for _ in range(4))
    flags = ["--head", "--port", str(port), "--num-cpus", str(cpus), "--dashboard-host",
             "127.0.0.1", "--dashboard-port", str(dashboard),
             "--dashboard-agent-listen-port", str(agent),
             "--ray-client-server-port", str(client)]  # fmt: skip
    with ray_node(environment, *flags) as process:
        deadline = time.monotonic() + 60
        while not _listens(dashboard):
            assert process.poll() is None, f"ray start exited with {process.returncode}"
            assert time.monotonic() < deadline, "ray start took longer than 60 s"
            time.sleep(0.2)
        yield RayHead(f"127.0.0.1:{port}", dashboard, client)


@contextmanager
def ray_node(environment: dict[str, str], *flags: str) -> Iterator[subprocess.Popen[bytes]]:
    """A node as `ray start --block` makes it."""
    ray = str(Path(sys.executable).with_name("ray"))  # not the one on the path, if any
    words = [ray, "start", "--block", *flags]
    with subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.terminate()
