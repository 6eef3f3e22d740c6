"""The job serve on a real Ray: started, killed in parts, overloaded, stopped."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from job import HERE, REPOSITORY, Job, free_port, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

SMALL = ["--cpus_per_replica", "0.1"]


def serve_echo(factory: str, *flags: str) -> list[str]:
    return [str(HERE / "serve_echo.py"), factory, *SMALL, *flags]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:
    folder = tmp_path_factory.mktemp("job")
    flags = ("--replicas", "2", "--max_in_flight", "4", "--request_timeout", "3")
    started = Job.start(folder, serve_echo("make", *flags))
    try:
        yield started.wait_until_serving()
    finally:
        started.process.kill()
        started.process.wait()


def replicas(job: Job) -> set[int]:
    """The pids that answer now."""
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: job.ask(), range(40)))
    return {body["pid"] for status, _, body in answers if status == 200}


def test_every_replica_answers(job: Job) -> None:
    assert len(replicas(job)) == 2
    status, _, body = job.ask("/any", "POST", body=b"x" * 100_000)
    assert (status, body["path"], body["length"], body["replicas"]) == (200, "/any", 100_000, 2)


def test_nothing_listens_beyond_loopback(job: Job) -> None:
    ports = {port for _, port in job.listening()}
    assert job.port in ports
    assert len(ports) > 5  # Ray's own among them
    assert job.beyond_loopback() == set()


def test_overload_is_refused_at_once_and_passes(job: Job) -> None:
    with ThreadPoolExecutor(60) as pool:
        answers = list(pool.map(lambda _: job.ask("/sleep?1"), range(60)))
    statuses = [status for status, _, _ in answers]
    assert set(statuses) == {200, 503}
    assert statuses.count(200) >= 16
    for status, headers, body in answers:
        if status == 503:
            assert headers["retry-after"] == "1"
            assert body["error"]["code"] == "unavailable"
    assert len(replicas(job)) == 2


def test_a_slow_answer_ends_in_504(job: Job) -> None:
    status, headers, body = job.ask("/sleep?20")
    assert (status, headers["retry-after"], body["error"]["code"]) == (504, "1", "timeout")


def test_an_error_shows_no_stack(job: Job) -> None:
    status, _, body = job.ask("/raise")
    assert (status, body["error"]["code"]) == (500, "internal")


class Load:
    """Clients that ask without pause over kept connections."""

    def __init__(self, port: int, clients: int) -> None:
        self.port, self.answered, self.failures = port, 0, [""][:0]
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        while not self._stop.is_set():
            try:
                connection.request("POST", "/", body=b"x" * 500)
                answer = connection.getresponse()
                body = answer.read()
                if answer.status != 200:
                    self.failures.append(f"{answer.status} {body[:100]!r}")
                self.answered += 1
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
        connection.close()


def test_a_killed_replica_costs_one_request_at_most(job: Job) -> None:
    for _ in range(2):
        before = replicas(job)
        with Load(job.port, 8) as load:
            wait_until(lambda: load.answered > 200, "load")
            os.kill(min(before), signal.SIGKILL)
            goal = load.answered + 500
            wait_until(lambda goal=goal: load.answered > goal, "load after the kill")
        assert len(load.failures) <= 1, load.failures
        wait_until(lambda: len(replicas(job)) == 2, "the replica to be replaced")


@pytest.mark.parametrize("command", [r"^\S+/haproxy -db ", "^ray::HAProxyManager"])
def test_a_killed_proxy_is_replaced(job: Job, command: str) -> None:
    def answers() -> bool:
        try:
            return job.ask()[0] == 200
        except (OSError, json.JSONDecodeError):
            return False

    (pid, *_) = job.pids(command)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: set(job.pids(command)) - {pid}, "another process in its place")
    wait_until(answers, "the endpoint to answer again")
    assert job.beyond_loopback() == set()


def test_stops_when_asked_and_leaves_nothing(job: Job) -> None:
    config = Path(f"/proc/{job.haproxy()[0]}/cmdline").read_text().split("\0")[3]
    assert job.stop() == 0
    assert job.result()["url"] == f"http://127.0.0.1:{job.port}"
    assert not Path(config).parents[1].exists()
    wait_until(lambda: not job.pids(), "its processes to end")
    assert "Traceback" not in job.said()


def test_killed_and_started_again_on_the_same_port(tmp_path: Path) -> None:
    port = free_port()
    first = Job.start(tmp_path, serve_echo("make", "--port", str(port))).wait_until_serving()
    first.process.kill()
    first.process.wait()
    flags = ("--port", str(port), "--host", "0.0.0.0")
    second = Job.start(tmp_path, serve_echo("make", *flags), MLOPS_SERVE_TOKEN="secret")
    try:
        second.wait_until_serving()
        assert second.ask()[0] == 200
        assert second.beyond_loopback() == {("0.0.0.0", port)}
        assert "open to other machines, with the token" in second.said()
        wait_until(lambda: not first.pids(), "the first job's processes to end")
        assert second.stop() == 0
    finally:
        second.process.kill()
        second.process.wait()


def test_ends_with_ray(tmp_path: Path) -> None:
    job = Job.start(tmp_path, serve_echo("make")).wait_until_serving()
    (raylet,) = job.pids(r"^\S+/raylet/raylet ")
    os.kill(raylet, signal.SIGKILL)
    assert job.process.wait(120) == 1
    assert "Ray must run as long as the endpoint" in job.said()
    wait_until(lambda: not job.pids(), "its processes to end")


def test_an_app_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    job = Job.start(tmp_path, serve_echo("broken"))
    assert job.process.wait(120) == 1
    assert "an error on purpose" in job.said()
    assert "Traceback" not in job.said()
    wait_until(lambda: not job.pids(), "its processes to end")


def test_replicas_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    job = Job.start(tmp_path, serve_echo("make", "--replicas", "9999"))
    assert job.process.wait(120) == 2
    assert "must fit the cluster" in job.said()


def test_a_port_in_use_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        job = Job.start(tmp_path, serve_echo("make", "--port", str(port)))
        assert job.process.wait(60) == 2
    (line,) = job.said().splitlines()
    assert line.startswith("error: port:") and "--port" in line


def test_rays_own_command_finds_the_application(tmp_path: Path) -> None:
    command = [Path(sys.executable).with_name("serve"), "build", "-o", "built.yaml"]
    path = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    subprocess.run(
        [*command, "mlops.serving.deployment:endpoint"],
        cwd=tmp_path,
        env=path,
        check=True,
        timeout=100,
        capture_output=True,
    )
    (built,) = yaml.safe_load((tmp_path / "built.yaml").read_text())["applications"]
    (deployment,) = built["deployments"]
    assert (deployment["name"], deployment["num_replicas"]) == ("endpoint", 1)
    assert deployment["backpressure_config"]["retry_after_s"] == 1
