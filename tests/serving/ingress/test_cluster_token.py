"""The endpoint on a cluster that was there before, which knows neither token nor password."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from endpoint_harness import numeric_table, register
from job import HERE, REPOSITORY, Job, free_port
from servers import RayHead, ray_head

from mlops.tracking.store.store import open_store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TOKEN = "token-that-nobody-may-see"
PASSWORD = "password-that-nobody-may-see"
ACCOUNT = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": PASSWORD}
SERVE = ["-m", "ray_jobs.serve", "--cpus_per_replica", "0.1"]


def bare_environment(home: Path) -> dict[str, str]:
    foreign = ("RAY_", "MLFLOW_", "MLOPS_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
    return {**kept, "HOME": str(home), "RAY_USAGE_STATS_ENABLED": "0"}


@dataclass(frozen=True)
class Cluster:
    """A Ray that somebody has started, and an MLflow server that wants a password."""

    head: RayHead
    folder: Path
    sessions: Path
    mlflow_uri: str
    environment: dict[str, str]

    def serve(self, *flags: str, **variables: str) -> Job:
        """The job as one runs it who has the password."""
        given = {"RAY_ADDRESS": self.head.address, "MLFLOW_TRACKING_URI": self.mlflow_uri}
        home = self.environment["HOME"]
        return Job.start(self.folder, [*SERVE, *flags], HOME=home, **given, **ACCOUNT, **variables)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    # Ray's sockets have their paths in it.
    sessions = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    environment = bare_environment(folder)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, sessions, ignore_errors=True)
        uri = stack.enter_context(mlflow_server(folder, environment))
        with pytest.MonkeyPatch.context() as patch:
            for name, value in ACCOUNT.items():
                patch.setenv(name, value)
            register(open_store(uri), numeric_table())
        started_with = {**environment, "RAY_TMPDIR": str(sessions), "PYTHONPATH": str(REPOSITORY)}
        head = stack.enter_context(ray_head(started_with))
        yield Cluster(head, folder, sessions, uri, environment)


@contextmanager
def mlflow_server(folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """An MLflow server with a password, and nothing on its disk beside it."""
    uri = f"http://127.0.0.1:{free_port()}"
    words = [sys.executable, "-m", "ray_jobs.tracking_server", "--authentication", "true"]
    words += ["--port", uri.rpartition(":")[2], "--folder", str(folder / "server")]
    words += ["--database", f"sqlite:///{folder}/server.db", "--workers", "1"]
    given = {**environment, "PYTHONPATH": str(REPOSITORY), **ACCOUNT}
    with subprocess.Popen(
        words, cwd=folder, env=given, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stderr is not None
        assert any(line.startswith("clients:") for line in process.stderr)
        try:
            yield uri
        finally:
            process.terminate()


@contextmanager
def running(job: Job) -> Iterator[Job]:
    try:
        yield job.wait_until_serving()
    finally:
        if job.process.poll() is None:
            assert job.stop() == 0, job.said()


def addresses() -> list[str]:
    """Loopback, and this machine's own as others call it, if it has one."""
    found = {"127.0.0.1", "127.0.0.2"}
    with suppress(OSError), closing(socket.socket(type=socket.SOCK_DGRAM)) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing
        found.add(probe.getsockname()[0])
    return sorted(found)


def ask(address: str, port: int, token: str | None, path: str = "/model") -> tuple[int, Any]:
    with closing(http.client.HTTPConnection(address, port, timeout=60)) as connection:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def everything_shown(cluster: Cluster) -> dict[str, bytes]:
    """What Ray has written down, what its dashboard tells, and how processes were started."""
    found = {str(path): path.read_bytes() for path in cluster.sessions.rglob("*") if path.is_file()}
    dashboard = f"http://127.0.0.1:{cluster.head.dashboard}"
    for path in ("serve/applications/", "jobs/", "cluster_status", "v0/actors?detail=true",
                 "v0/workers?detail=true", "v0/tasks?detail=true", "v0/runtime_envs?detail=true",
                 "v0/objects?detail=true", "v0/jobs?detail=true"):  # fmt: skip
        with urlopen(f"{dashboard}/api/{path}", timeout=60) as answer:
            found[path] = answer.read()
    with urlopen(f"{dashboard}/logical/actors", timeout=60) as answer:
        found["actors"] = answer.read()
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with suppress(OSError):
                found[f"command {process.name}"] = (process / "cmdline").read_bytes()
    return found


def test_the_token_and_the_password_reach_the_replicas_and_nobody_else(cluster: Cluster) -> None:
    flags = ["--host", "0.0.0.0", "--replicas", "2"]
    with running(cluster.serve(*flags, MLOPS_SERVE_TOKEN=TOKEN)) as job:
        assert "open to other machines, with the token" in job.said()
        # So the replica has the password; with two clusters on few cores it may take a while.
        deadline = time.monotonic() + 60
        while ask("127.0.0.1", job.port, TOKEN)[0] != 200:
            assert time.monotonic() < deadline, job.said()
            time.sleep(0.5)
        for address in addresses():
            # Often, so that each replica is asked.
            for _ in range(5):
                for wrong in (None, "", "another", TOKEN + "x"):
                    status, answer = ask(address, job.port, wrong)
                    assert (status, answer["error"]["code"]) == (401, "unauthorized")
                    assert answer["model"] is None
                status, answer = ask(address, job.port, TOKEN)
                assert (status, answer["version"]) == (200, 1)

        shown = everything_shown(cluster)
        assert b"mlops" in shown["serve/applications/"]
        assert len([name for name in shown if name.startswith(str(cluster.sessions))]) > 20
        for secret in (TOKEN, PASSWORD):
            assert [name for name, text in shown.items() if secret.encode() in text] == []
        (file,) = [
            path
            for path in Path(tempfile.gettempdir()).glob("mlops-*/credentials.json")
            if TOKEN in path.read_text()
        ]
        assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert not file.parent.exists()
    assert TOKEN not in job.said() + job.output.read_text()


def test_a_token_in_a_file_reaches_them_too(cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.touch(mode=0o600)
    path.write_text(f"{TOKEN}\n")
    with running(cluster.serve("--host", "0.0.0.0", "--token_file", str(path))) as job:
        assert ask("127.0.0.2", job.port, None)[0] == 401
        assert ask("127.0.0.2", job.port, TOKEN)[0] == 200


def test_without_a_token_only_this_machine_is_let_in(cluster: Cluster) -> None:
    refused = cluster.serve("--host", "0.0.0.0")
    assert refused.process.wait(120) == 2
    (line,) = refused.said().splitlines()
    assert line.startswith("error: host: 0.0.0.0 is open to other machines and must come with a")
    with running(cluster.serve()) as job:
        assert ask("127.0.0.1", job.port, None)[0] == 200
        for address in addresses():
            if address != "127.0.0.1":
                with pytest.raises(OSError):
                    ask(address, job.port, None)

        # Who is told that Serve runs there already has not ended it.
        second = cluster.serve()
        assert second.process.wait(120) == 2
        assert "error: the cluster must not run Serve yet" in second.said()
        assert ask("127.0.0.1", job.port, None)[0] == 200


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("serve-is-open", "host: 0.0.0.0 is open to other machines and must come with"),
        ("settings-are-open", "host: 0.0.0.0 is open to other machines and must come with"),
        ("credentials-are-gone", "a replica must be able to read the job's credentials"),
        ("nothing-is-open", "started"),
    ],
)
def test_whatever_makes_a_replica_it_does_not_start_open(
    case: str, said: str, cluster: Cluster
) -> None:
    port = free_port()
    done = subprocess.run(
        [sys.executable, str(HERE / "open_endpoint.py"), case, str(port)],
        cwd=cluster.folder,
        env={
            **cluster.environment,
            "PYTHONPATH": str(REPOSITORY),
            "RAY_ADDRESS": cluster.head.address,
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert said in done.stdout, done.stdout + done.stderr
    with pytest.raises((OSError, HTTPError)):
        ask("127.0.0.2", port, None)
