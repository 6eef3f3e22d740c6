"""Addresses where no cluster is: each is told in a line, and soon."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from servers import free_port

from mlops.cluster import connection, job_server, news, submission
from mlops.errors import InputError


class Answer(BaseHTTPRequestHandler):
    """A server of something else, which answers everything with JSON."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def other_server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def silent_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for module in (connection, submission):
        monkeypatch.setattr(module, "CONNECT_SECONDS", 0.5)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.setenv(name, "")  # what is set here is put back
        monkeypatch.delenv(name)


def refused(address: str | None) -> str:
    with pytest.raises(InputError) as raised:
        connection.Connection(address).open()
    return str(raised.value)


@pytest.mark.parametrize(
    "address",
    ["rubbish", "127.0.0.1", "127.0.0.1:", ":6379", "a:b", " ", "http://a:1", "ray://a:1"],
)
def test_what_is_no_address(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    text = f"address: must be that of a running cluster, got {address} (no HOST:PORT; "
    assert refused(None).startswith(text)


def test_what_listens_is_not_ray(other_server: str, silent_server: str) -> None:
    dead = f"127.0.0.1:{free_port()}"
    assert f"got {other_server} (something else than Ray listens there)" in refused(other_server)
    assert f"got {silent_server} (timed out)" in refused(silent_server)
    assert f"got {dead} ([Errno 111] Connection refused)" in refused(dead)
    assert "got 127.0.0.1:77777 (" in refused("127.0.0.1:77777")


def test_a_cluster_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    assert f":{port} ([Errno 111] Connection refused)" in refused("auto")


@pytest.mark.parametrize("scheme", ["http", "ray"])
def test_what_listens_takes_no_jobs(scheme: str, other_server: str, silent_server: str) -> None:
    for server in (other_server, silent_server, f"127.0.0.1:{free_port()}"):
        address = f"{scheme}://{server}"
        with pytest.raises(InputError, match=f"address: must be that of a job .* got {address} "):
            submission.run("tune", [], address, "sqlite:///mlflow.db")


def test_no_request_to_a_job_server_waits_for_ever(
    silent_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_server, "ANSWER_SECONDS", 0.5)
    with pytest.raises(OSError, match="Read timed out"):
        job_server.connect(f"http://{silent_server}")


def test_where_the_insides_of_ray_are_others_its_own_ways_are_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ray._private import services, worker

    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    assert connection._found() != "auto"
    monkeypatch.delattr(services, "canonicalize_bootstrap_address")
    assert connection._found() == "auto"
    monkeypatch.delattr(worker, "print_to_stdstream")
    news.shorten()
    assert not hasattr(worker, "print_to_stdstream")

    class OtherClient:
        def get_job_logs(self, number: str) -> str:
            return f"all of {number}\n"

    client: Any = OtherClient()
    assert [*job_server.log_file(client, "job 1", "node")] == ["all of job 1\n"]
