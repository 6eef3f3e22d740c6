"""Token, size, slowness, overload."""

from __future__ import annotations

import dataclasses
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from endpoint_harness import (
    TOKEN,
    Endpoint,
    EndpointSettings,
    Served,
    mixed_table,
    rows_of,
    serve_champion,
)

from mlops.errors import SettingsError
from mlops.serving.endpoint.security import read_token
from mlops.tracking.store.store import Store

ROWS = rows_of(mixed_table(5))
CAP = 200_000
BODY = json.dumps({"rows": ROWS}).encode()


@pytest.fixture(scope="module")
def guarded(mixed: Served, shared_store: Store) -> Iterator[Endpoint]:
    with serve_champion(shared_store, token=TOKEN) as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def narrow(mixed: Served, shared_store: Store) -> Iterator[Endpoint]:
    """An endpoint with little patience and room."""
    settings = EndpointSettings(
        max_rows=10_000, max_body_bytes=CAP, max_in_flight=3, body_timeout=0.5, request_timeout=0.5
    )
    with serve_champion(shared_store, settings) as endpoint:
        yield endpoint


ROUTES: list[tuple[str, Any]] = [
    ("/predict", {"rows": ROWS}),
    ("/invocations", {"dataframe_records": ROWS}),
    ("/v2/models/mlp/infer", {"inputs": []}),
    *[
        (path, None)
        for path in (
            "/model", "/version", "/metrics", "/docs", "/openapi.json", "/v2", "/v2/models/mlp",
            "/v2/models/mlp/ready", "/v2/models/mlp/versions/1", "/nowhere", "/", "//ping",
            "/ping/", "/PING", "/health/../model",
        )
    ],
]  # fmt: skip


@pytest.mark.parametrize(("path", "body"), ROUTES, ids=[path for path, _ in ROUTES])
@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer wrong", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN, "Bearer \u00e9"],
)
def test_nothing_answers_without_the_token(
    header: str, path: str, body: Any, guarded: Endpoint
) -> None:
    headers = {"Authorization": header.encode("utf-8")}
    answer = guarded.ask(path, body, headers=headers)  # type: ignore[arg-type]
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert "X-Model-Version" not in answer.headers
    found = answer.json()
    if path == "/invocations":
        assert found["error_code"] == "UNAUTHORIZED"
    elif path.endswith("/infer"):
        assert found["code"] == "unauthorized"
    else:
        assert found["error"]["code"] == "unauthorized"
        assert found["model"] is None
    assert TOKEN not in answer.text


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_the_token_opens(scheme: str, guarded: Endpoint) -> None:
    headers = {"Authorization": f"{scheme} {TOKEN}"}
    assert guarded.ask("/predict", {"rows": ROWS}, headers=headers).status_code == 200
    assert guarded.ask("/model", headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/ping", "/health", "/v2/health/live", "/v2/health/ready"])
def test_liveness_is_open(path: str, guarded: Endpoint) -> None:
    assert guarded.ask(path, headers={"Authorization": ""}).status_code == 200


def test_the_token_is_read_from_the_environment_or_a_file_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_token(None) is None
    path = tmp_path / "token"
    with pytest.raises(SettingsError, match="must be a file"):
        read_token(str(path))
    path.write_text("secret-of-file\n")
    path.chmod(0o644)
    with pytest.raises(SettingsError, match="chmod 600"):
        read_token(str(path))
    path.chmod(0o600)
    assert read_token(str(path)) == "secret-of-file"
    monkeypatch.setenv("MLOPS_SERVE_TOKEN", "secret")
    assert read_token(str(path)) == "secret"
    for unusable in ("", " ", "two words", "t\u00f6ken"):
        monkeypatch.setenv("MLOPS_SERVE_TOKEN", unusable)
        with pytest.raises(SettingsError, match="must be one word"):
            read_token(None)


def head(path: str, *lines: str) -> bytes:
    start = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
    return "\r\n".join([*start, *lines, "", ""]).encode()


def answer_of(connection: socket.socket) -> tuple[int, bytes]:
    """Reads until the server closes, or the answer is whole."""
    connection.settimeout(20)
    received = b""
    while True:
        try:
            part = connection.recv(65_536)
        except TimeoutError:
            break
        received += part
        head, _, body = received.partition(b"\r\n\r\n")
        sizes = [
            int(line.split(b":")[1])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length")
        ]
        if not part or (sizes and len(body) >= sizes[0]):
            break
    return int(received.split(b" ")[1]), received


@pytest.mark.parametrize("path", ["/predict", "/invocations", "/v2/models/mlp/infer"])
def test_a_body_announced_too_large_is_refused_before_any_of_it_comes(
    path: str, narrow: Endpoint
) -> None:
    for size in (CAP + 1, 10**12, 10**17):
        with socket.create_connection(("127.0.0.1", narrow.port)) as connection:
            connection.sendall(head(path, f"Content-Length: {size}"))
            status, received = answer_of(connection)
        assert status == 413
        assert b"connection: close" in received.lower()


def test_a_body_in_chunks_is_refused_once_it_is_too_large(narrow: Endpoint) -> None:
    chunk = b"%x\r\n%s\r\n" % (50_000, b"x" * 50_000)
    with socket.create_connection(("127.0.0.1", narrow.port)) as connection:
        connection.sendall(head("/predict", "Transfer-Encoding: chunked"))
        for _ in range(5):  # and never an end
            connection.sendall(chunk)
        status, received = answer_of(connection)
    assert status == 413
    assert json.loads(received.partition(b"\r\n\r\n")[2])["error"]["code"] == "too_large"


def test_a_client_that_sends_all_of_a_body_too_large_still_gets_the_answer(
    narrow: Endpoint,
) -> None:
    answer = narrow.ask("/predict", b"x" * (20 * CAP))
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "too_large"


def test_a_body_of_the_largest_size_is_read(narrow: Endpoint) -> None:
    body = BODY[:-1] + b" " * (CAP - len(BODY)) + b"}"
    assert len(body) == CAP
    assert narrow.ask("/predict", body).status_code == 200
    assert narrow.ask("/predict", body + b" ").status_code == 413


def test_a_body_in_pieces_is_read(narrow: Endpoint) -> None:
    with socket.create_connection(("127.0.0.1", narrow.port)) as connection:
        connection.sendall(head("/predict", f"Content-Length: {len(BODY)}"))
        for start in range(0, len(BODY), 100):
            connection.sendall(BODY[start : start + 100])
            time.sleep(0.005)
        assert answer_of(connection)[0] == 200


def test_slow_clients_are_let_go_and_keep_nobody_waiting(narrow: Endpoint) -> None:
    slow = [socket.create_connection(("127.0.0.1", narrow.port)) for _ in range(50)]
    try:
        for connection in slow:
            connection.sendall(head("/predict", "Content-Length: 1000") + b"{")
        for _ in range(20):
            assert narrow.ask("/predict", {"rows": ROWS}).status_code == 200
        for connection in slow:
            status, received = answer_of(connection)
            assert status == 408
            assert b"slow_body" in received
    finally:
        for connection in slow:
            connection.close()
    assert narrow.ask("/predict", {"rows": ROWS}).status_code == 200


def test_a_client_that_leaves_in_the_middle_does_no_harm(narrow: Endpoint) -> None:
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", narrow.port)) as connection:
            connection.sendall(head("/predict", "Content-Length: 1000") + b"{")
    assert narrow.ask("/predict", {"rows": ROWS}).status_code == 200


def test_all_bodies_together_are_bounded(narrow: Endpoint) -> None:
    """Four of the largest size fit; who comes after is told to come again."""
    clients = [socket.create_connection(("127.0.0.1", narrow.port)) for _ in range(8)]
    try:
        for connection in clients:
            part = b"x" * (CAP * 9 // 10)
            connection.sendall(head("/predict", f"Content-Length: {CAP}") + part)
        statuses = Counter(answer_of(connection)[0] for connection in clients)
    finally:
        for connection in clients:
            connection.close()
    assert statuses == {408: 4, 503: 4}
    assert narrow.ask("/predict", BODY).status_code == 200


class Held:
    """The network of a model, held until the test lets it go."""

    def __init__(self, network: Any) -> None:
        self.network = network
        self.entered = threading.Semaphore(0)
        self.released = threading.Event()

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        self.entered.release()
        self.released.wait(30)
        found: np.ndarray = self.network.probabilities(x)
        return found


@pytest.fixture
def hold(narrow: Endpoint) -> Iterator[Held]:
    champion = narrow.champion
    assert champion is not None
    model = champion._model
    assert model is not None
    held = Held(model.network)
    champion._model = dataclasses.replace(model, network=held)  # type: ignore[arg-type]
    yield held
    held.released.set()
    champion._model = model


def in_threads(number: int, ask: Callable[[], Any]) -> tuple[list[threading.Thread], list[Any]]:
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda: answers.append(ask())) for _ in range(number)]
    for thread in threads:
        thread.start()
    return threads, answers


def test_overload_is_refused_with_retry_after_and_passes(narrow: Endpoint, hold: Held) -> None:
    large = json.dumps({"rows": ROWS * 250}).encode()
    assert 65_536 < len(large) <= CAP
    threads, answers = in_threads(8, lambda: narrow.ask("/predict", large))
    for thread in threads:
        thread.join()
    statuses = Counter((a.status_code, a.json()["error"]["code"]) for a in answers)
    # Three are taken on, two of them computed; none is answered in time.
    assert statuses == {(503, "overloaded"): 5, (503, "timeout"): 3}
    assert all(answer.headers["Retry-After"] for answer in answers)
    # Those that are computed still keep their places.
    assert narrow.ask("/predict", large).json()["error"]["code"] == "overloaded"
    hold.released.set()
    for _ in range(1000):
        if narrow.ask("/predict", large).status_code == 200:
            break
        time.sleep(0.01)
    threads, answers = in_threads(3, lambda: narrow.ask("/predict", {"rows": ROWS}))
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [200, 200, 200]


def test_the_page_is_open_and_what_it_asks_is_not(shared_store: Store, mixed: Served) -> None:
    settings = EndpointSettings(page=True)
    with serve_champion(shared_store, settings, token=TOKEN) as endpoint:
        nobody = {"Authorization": ""}
        page = endpoint.ask("/", headers=nobody)
        assert page.status_code == 200
        assert "text/html" in page.headers["Content-Type"]
        assert "Content-Security-Policy" in page.headers
        assert endpoint.ask("/model", headers=nobody).status_code == 401
        assert endpoint.ask("/model").status_code == 200


def test_an_error_of_ours_is_no_stack_trace(
    narrow: Endpoint, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    champion = narrow.champion
    assert champion is not None
    model = champion._model
    assert model is not None
    broken = dataclasses.replace(model, network=None)  # type: ignore[arg-type]
    monkeypatch.setattr(champion, "_model", broken)
    answer = narrow.ask("/predict", {"rows": ROWS})
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal"
    assert "Traceback" not in answer.text
    assert "NoneType" not in answer.text
